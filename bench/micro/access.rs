//! What it costs to let somebody in, and to look a path up in a grant.

use std::hint::black_box;

use criterion::Criterion;
use shardcast::access::{
    Access, Algorithm, Claims, Form, Grant, KeyFile, KeySet, Place, SigningKey,
};
use shardcast::wire::Path;

const NOW: i64 = 1_795_748_116;

pub fn all(criterion: &mut Criterion) {
    let pattern = |text: &str| text.parse().expect("a pattern");
    let path = |text: &str| Path::parse(text).expect("a path");
    let grant = Grant::public(&[], &[pattern("rooms/123/**")], &[pattern("rooms/123/alice/**")]);
    let claims = Claims { grant, expires: Some(NOW + 1), ..Claims::default() };
    let room = path("rooms/123");
    for algorithm in
        [Algorithm::HS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA, Algorithm::RS256]
    {
        let key = SigningKey::generate(algorithm, None, None).expect("randomness");
        let bytes = key.public_json().unwrap_or(key.private_json()).into_bytes();
        let file = KeyFile { path: "root.jwk".into(), place: Place::File, bytes };
        let keys = KeySet::new(&[file]).expect("a key").into();
        let access = Access { keys, ..Access::default() };
        let token = key.sign(&claims, Form::Prefixes).expect("a key that signs");
        let admit = |token: &str| access.admit(black_box(&room), Some(black_box(token)), NOW);
        let name = algorithm.name().to_lowercase();
        criterion.bench_function(&format!("access/admit_{name}"), |bencher| {
            bencher.iter(|| admit(&token).expect("a good token"));
        });
        let other = key.sign(&Claims { issued: Some(1), ..claims.clone() }, Form::Prefixes);
        let other = other.expect("a key that signs");
        let (message, _) = token.rsplit_once('.').expect("three parts");
        let (_, signature) = other.rsplit_once('.').expect("three parts");
        let bad = format!("{message}.{signature}");
        criterion.bench_function(&format!("access/refuse_{name}"), |bencher| {
            bencher.iter(|| admit(&bad).expect_err("a signature of something else"));
        });
    }
    let asked = path("rooms/123/alice/camera");
    for (name, text) in [("subtree", "rooms/123/**"), ("pattern", "rooms/*/alice/*")] {
        let grant = Grant::public(&[pattern(text)], &[], &[]);
        criterion.bench_function(&format!("access/may_{name}"), |bencher| {
            bencher.iter(|| assert!(grant.may_subscribe(black_box(&asked))));
        });
    }
}
