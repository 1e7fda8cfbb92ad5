//! One order, from the account to the certificate.

use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error, Identifier,
    NewOrder, Order, OrderStatus, RetryPolicy,
};

use super::Fault;
use super::challenge::Challenges;

/// How long the authority may look for answers, and then make the certificate.
const PATIENCE: RetryPolicy = RetryPolicy::new().timeout(Duration::from_secs(90));

/// The chain and a new key, in PEM.
pub async fn order(
    account: &Account,
    domains: &[String],
    replaces: Option<&CertificateIdentifier<'_>>,
    challenges: &Challenges,
) -> Result<String, Fault> {
    let identifiers: Vec<Identifier> = domains.iter().cloned().map(Identifier::Dns).collect();
    let plain = NewOrder::new(&identifiers);
    // What takes the place of another one is bounded less. Where it may not, it is one as any other.
    let replacing = match replaces {
        Some(replaced) => {
            let asked = NewOrder::new(&identifiers).replaces(replaced.clone());
            account.new_order(&asked).await.ok()
        }
        None => None,
    };
    let mut order = match replacing {
        Some(order) => order,
        None => account.new_order(&plain).await?,
    };
    let mut shown = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let domain = authorization.identifier().to_string();
        let challenge = authorization.challenge(ChallengeType::Http01);
        let mut challenge = challenge.ok_or(Fault::NoHttp(domain))?;
        let answer = challenge.key_authorization();
        shown.push(challenges.show(&challenge.token, answer.as_str()));
        challenge.set_ready().await?;
    }
    match order.poll_ready(&PATIENCE).await {
        Ok(OrderStatus::Ready) => {}
        Ok(_) => return Err(why(&mut order).await.unwrap_or(Fault::Refused)),
        Err(error) => return Err(why(&mut order).await.unwrap_or(error.into())),
    }
    drop(shown);
    let key = order.finalize().await?;
    let chain = order.poll_certificate(&PATIENCE).await?;
    Ok(format!("{chain}\n{key}"))
}

/// What the authority says of the first challenge that it does not take.
async fn why(order: &mut Order) -> Option<Fault> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.ok()?;
        authorization.refresh().await.ok()?;
        let problem =
            authorization.challenges.iter().find_map(|challenge| challenge.error.as_ref());
        if let Some(problem) = problem {
            let domain = authorization.identifier().to_string();
            return Some(Fault::Challenge { domain, reason: problem.to_string() });
        }
    }
    None
}

/// The authority has forgotten it, or is another one at the same address.
pub fn is_unknown_account(error: &Error) -> bool {
    const UNKNOWN: &str = "urn:ietf:params:acme:error:accountDoesNotExist";
    matches!(error, Error::Api(problem) if problem.r#type.as_deref() == Some(UNKNOWN))
}
