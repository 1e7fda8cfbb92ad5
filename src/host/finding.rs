//! One thing that was looked at: whether it is as a relay needs it, what it costs where it is not, and what
//! mends that.

use std::fmt;

use serde::Serialize;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub subject: &'static str,
    pub grade: Grade,
    /// What is so.
    pub says: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub costs: Option<String>,
    /// A command, or what else helps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    Ok,
    /// The relay runs, and worse than it could.
    Warn,
    /// It does not start, or nobody can use it.
    Fail,
}

impl Finding {
    pub fn ok(subject: &'static str, says: impl Into<String>) -> Finding {
        Finding { subject, grade: Grade::Ok, says: says.into(), costs: None, mend: None }
    }

    pub fn warn(
        subject: &'static str,
        says: impl Into<String>,
        costs: impl Into<String>,
        mend: impl Into<String>,
    ) -> Finding {
        Finding {
            subject,
            grade: Grade::Warn,
            says: says.into(),
            costs: Some(costs.into()),
            mend: Some(mend.into()),
        }
    }

    pub fn fail(
        subject: &'static str,
        says: impl Into<String>,
        costs: impl Into<String>,
        mend: impl Into<String>,
    ) -> Finding {
        Finding { grade: Grade::Fail, ..Finding::warn(subject, says, costs, mend) }
    }

    /// With this the relay does not start. Its refusal names the remedy.
    pub fn refused(subject: &'static str, refusal: &dyn fmt::Display) -> Finding {
        Finding {
            subject,
            grade: Grade::Fail,
            says: refusal.to_string(),
            costs: Some("the relay does not start".to_owned()),
            mend: None,
        }
    }
}

/// In one line.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.says)?;
        if let Some(costs) = &self.costs {
            write!(f, "; {costs}")?;
        }
        match &self.mend {
            Some(mend) => write!(f, "; {mend}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_one_line() {
        let short = Finding::warn("socket buffers", "104 KiB", "bursts are lost", "`sysctl -w`");
        assert_eq!(short.to_string(), "socket buffers: 104 KiB; bursts are lost; `sysctl -w`");
        assert_eq!(Finding::ok("clock", "tsc").to_string(), "clock: tsc");
    }
}
