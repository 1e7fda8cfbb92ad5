//! Keys and tokens that `@moq/token` 0.2.3 made: root `rooms/123`, put `alice`, get "".

use shardcast::access::{Access, Grant, KeySet, Place, Refusal};

use crate::support::{NOW, file, path};

const VECTORS: [(&str, &str, &str); 6] = [
    ("HS256", include_str!("tokens/HS256.jwk"), include_str!("tokens/HS256.jwt")),
    ("ES256", include_str!("tokens/ES256.pub.jwk"), include_str!("tokens/ES256.jwt")),
    ("ES384", include_str!("tokens/ES384.pub.jwk"), include_str!("tokens/ES384.jwt")),
    ("EdDSA", include_str!("tokens/EdDSA.pub.jwk"), include_str!("tokens/EdDSA.jwt")),
    ("RS256", include_str!("tokens/RS256.pub.jwk"), include_str!("tokens/RS256.jwt")),
    ("PS256", include_str!("tokens/PS256.pub.jwk"), include_str!("tokens/PS256.jwt")),
];

fn granted() -> Grant {
    let publish = ["alice/**"].map(|text| text.parse().unwrap());
    let subscribe = ["**"].map(|text| text.parse().unwrap());
    Grant::new(path("rooms/123"), publish.into_iter().collect(), subscribe.into_iter().collect())
}

#[test]
fn each_is_what_it_says() {
    for (algorithm, jwk, jwt) in VECTORS {
        for (name, place) in
            [("any.jwk", Place::File), (&format!("kid-{algorithm}.jwk"), Place::Directory)]
        {
            let keys = KeySet::new(&[file(name, place, jwk)]).unwrap();
            let verified = keys.verify(jwt.trim(), NOW).unwrap();
            assert_eq!(verified.claims.grant, granted(), "{algorithm}");
            assert_eq!(verified.claims.expires, Some(4_102_444_800), "{algorithm}");
            assert_eq!(verified.claims.issued.map(|at| (NOW - at) / 100), Some(0), "{algorithm}");
            assert_eq!(verified.key.label(), format!("kid-{algorithm}"));
        }
    }
}

#[test]
fn each_lets_in_at_its_room_and_around_it() {
    let files = VECTORS.map(|(algorithm, jwk, _)| {
        file(&format!("keys/kid-{algorithm}.jwk"), Place::Directory, jwk)
    });
    let access = Access { keys: KeySet::new(&files).unwrap().into(), ..Access::default() };
    for (_, _, jwt) in VECTORS {
        let admit = |at: &str| access.admit(&path(at), Some(jwt.trim()), NOW);
        let room = admit("rooms/123").unwrap();
        assert_eq!(room.grant, granted());
        assert_eq!(room.expires, Some(4_102_444_800));
        assert_eq!(room.check(&access.keys, 4_102_444_799), Ok(()));
        assert_eq!(
            room.check(&access.keys, 4_102_444_800),
            Err(Refusal::Expired { at: 4_102_444_800 })
        );
        let above = admit("").unwrap().grant;
        assert!(
            above.may_publish(&path("rooms/123/alice/cam"))
                && !above.may_publish(&path("rooms/123/bob"))
        );
        assert!(above.may_subscribe(&path("rooms/123")) && !above.may_subscribe(&path("rooms")));
        let below = admit("rooms/123/bob").unwrap().grant;
        assert!(below.may_subscribe(&path("rooms/123/bob")) && below.publish().is_empty());
        assert_eq!(admit("rooms/1234"), Err(Refusal::RootMismatch));
    }
}
