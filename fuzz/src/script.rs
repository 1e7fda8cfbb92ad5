//! Inputs that are conversations: two bytes of setting, then steps.
//!
//! A step is what happens (one byte), to which of several (one byte), and bytes with their length
//! before them. Any bytes are a script: what is cut short at the end is left out.

use shardcast::wire::{encode_varint, split_message};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    pub kind: u8,
    pub which: u8,
    pub bytes: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Script {
    pub setting: [u8; 2],
    pub steps: Vec<Step>,
}

impl Script {
    pub fn parse(input: &[u8]) -> Script {
        let Some((setting, mut rest)) = input.split_first_chunk::<2>() else {
            return Script::default();
        };
        let mut script = Script { setting: *setting, steps: Vec::new() };
        while let Some((&[kind, which], tail)) = rest.split_first_chunk::<2>()
            && let Ok(Some((bytes, used))) = split_message(tail, tail.len())
        {
            script.steps.push(Step { kind, which, bytes: bytes.to_vec() });
            rest = &tail[used..];
        }
        script
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.setting.to_vec();
        for Step { kind, which, bytes } in &self.steps {
            out.extend([*kind, *which]);
            encode_varint(bytes.len() as u64, &mut out);
            out.extend_from_slice(bytes);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_what_was_written() {
        let steps = vec![
            Step { kind: 1, which: 2, bytes: b"three".to_vec() },
            Step { kind: 4, which: 5, bytes: vec![6; 100] },
            Step { kind: 7, which: 8, bytes: Vec::new() },
        ];
        let script = Script { setting: [9, 10], steps };
        let bytes = script.encode();
        assert_eq!(Script::parse(&bytes), script);
        assert_eq!(Script::parse(&bytes[..bytes.len() - 1]).steps, script.steps[..2]);
        assert_eq!(Script::parse(&[]), Script::default());
    }
}
