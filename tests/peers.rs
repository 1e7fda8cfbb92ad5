//! Certificates of clients with the real binary and released clients: relays come in by theirs and hear of
//! what is hidden, others are as if they had none, and what is not good does not come in at all.

#[allow(dead_code, reason = "each play needs a part of what all plays share")]
mod support {
    pub mod cards;
    pub mod client;
    pub mod relay;
}

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use moq_tokio::connect;
use support::cards::{Authority, Card};
use support::client::{LITE_03, LITE_05, LITE_06, Peer, Role, within};
use support::relay::Relay;

/// A relay where everybody watches, and relays of these names do everything.
async fn guarded(cards: &Authority, peers: &str) -> Relay {
    let root = cards.root.to_str().expect("a path of ours");
    let args = ["--listen-tls-root", root, "--auth-peer", peers, "--auth-public-subscribe", "**"];
    Relay::guarded(2, &args).await
}

fn shown(relay: &Relay, card: &Card) -> Relay {
    relay.showing(&card.cert, &card.key)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_come_in_by_certificate_and_hear_of_what_is_hidden() {
    let cards = Authority::new("peers");
    let edge = cards.issue("edge", &["edge0.example", "edge1.example"]);
    let origin = cards.issue("origin", &[]);
    // The names of relays are not the first ones of these.
    let user = cards.issue("user", &["user.example", "edge0.example"]);
    let relay = guarded(&cards, "edge0.example,Origin").await;
    for (round, way) in [relay.clone(), relay.web()].iter().enumerate() {
        for version in [LITE_03, LITE_05, LITE_06] {
            let name = |text: &str| format!("{text}-{round}-{version}");
            let publisher = Peer::connect(&shown(way, &origin), version, Role::Publisher).await;
            let mut node = Peer::connect(&shown(way, &edge), version, Role::Viewer).await;
            let mut plain = Peer::connect(way, version, Role::Viewer).await;
            let mut other = Peer::connect(&shown(way, &user), version, Role::Viewer).await;

            let (cam, hidden) = (name("cam"), name(".stats/node"));
            let _hidden = publisher.announce(&hidden, &["video"]);
            node.sees(&hidden).await;
            let _cam = publisher.announce(&cam, &["video"]);
            // The first that they hear of.
            for viewer in [&mut node, &mut plain, &mut other] {
                viewer.sees(&cam).await;
            }
            publisher.leave().await;
            let line = relay.says("is of no relay").await;
            assert!(line.contains("name=\"user.example\""), "{line}");
            for peer in [node, plain, other] {
                peer.leave().await;
            }
            relay.deserted().await;
        }
    }
    // They may only watch.
    let turned_away = async |relay: &Relay| {
        let origin =
            moq_tokio::origin::spawn_config(moq_net::origin::Config::new(moq_net::Hop::random()));
        let client = config(relay).init(Default::default()).expect("a client");
        let dialled =
            client.with_publisher(&origin).connect(relay.url().parse::<url::Url>().unwrap());
        within("a refusal", dialled.closed()).await.expect_err("it is given up")
    };
    for way in [relay.clone(), relay.web()] {
        for way in [way.clone(), shown(&way, &user)] {
            let error = turned_away(&way).await;
            assert!(error.is_auth(), "{error}");
        }
    }
    // A token that is shown decides alone, and this one is none.
    let error = Peer::turned_away(&shown(&relay, &edge).at("/?jwt=a.b.c"), LITE_06).await;
    assert!(error.is_auth(), "{error}");
    relay.stop().await.expect_success();
}

fn config(relay: &Relay) -> connect::Config {
    let mut config = connect::Config::default();
    config.tls.insecure = Some(true);
    if let Some([cert, key]) = relay.identity() {
        (config.tls.cert, config.tls.key) = (Some(cert.clone()), Some(key.clone()));
    }
    config.version = vec![LITE_06.parse().expect("a version")];
    config.bind = Some(([127, 0, 0, 1], 0).into());
    config
}

/// What a client hears whose handshake fails.
async fn fails(relay: &Relay) -> String {
    let mut config = config(relay);
    config.once = Some(true);
    let receives =
        moq_tokio::origin::spawn_config(moq_net::origin::Config::new(moq_net::Hop::random()));
    let client = config.init(Default::default()).expect("a client").with_subscriber(receives);
    let url: url::Url = relay.url().parse().expect("an address");
    let end = within("an end", client.connect(url).closed()).await;
    format!("{end:?}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_good_ends_the_handshake() {
    let (cards, strangers) = (Authority::new("good"), Authority::new("strangers"));
    let over = SystemTime::now() - Duration::from_secs(1);
    let relay = guarded(&cards, "edge0.example").await;
    let mut refused = 0;
    for way in [relay.clone(), relay.web()] {
        // Of somebody else, who has the same name as theirs; and one that has expired.
        for (card, why) in [
            (strangers.issue("edge", &["edge0.example"]), "BadSignature"),
            (cards.issue_until("late", &["edge0.example"], over), "xpired"),
        ] {
            // A client's side of the handshake ends before its certificate is looked at: one that
            // is slow to hear of the refusal only says that it lost the connection.
            let end = fails(&shown(&way, &card)).await;
            let told = end.contains("invalid peer certificate") && end.contains(why);
            assert!(told || end.contains("connection lost"), "{end}");
            refused += 1;
            let line = relay.says_times("refused", refused).await;
            assert!(line.contains("invalid peer certificate") && line.contains(why), "{line}");
        }
    }
    assert_eq!(relay.sessions(), 0, "{:#?}", relay.log());
    let plain = Peer::connect(&relay, LITE_06, Role::Viewer).await;
    plain.leave().await;
    relay.stop().await.expect_success();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_leaves_when_its_certificate_expires() {
    let cards = Authority::new("expires");
    let relay = guarded(&cards, "edge0.example").await;
    let unix = || SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs();
    let until = unix() + 4;
    let card =
        cards.issue_until("edge", &["edge0.example"], UNIX_EPOCH + Duration::from_secs(until));
    let node = Peer::connect(&shown(&relay, &card), LITE_06, Role::Both).await;
    let error = node.ended().await;
    assert!(error.is_auth() && unix() == until, "{error} at {}, not {until}", unix());
    relay.stop().await.expect_success();
}

/// Files of who vouches for clients are read again when they change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_authority_vouches_for_relays() {
    let (old, new) = (Authority::new("old-root"), Authority::new("new-root"));
    let relay = guarded(&old, "edge.example").await;
    let [of_old, of_new] = [&old, &new].map(|authority| {
        let card = authority.issue("edge", &["edge.example"]);
        relay.showing(&card.cert, &card.key)
    });
    let edge = Peer::connect(&of_old, LITE_06, Role::Both).await;
    assert!(fails(&of_new).await.contains("BadSignature"));

    let fresh = old.root.with_extension("new");
    std::fs::copy(&new.root, &fresh).expect("a copy");
    std::fs::rename(&fresh, &old.root).expect("it takes its place");
    relay.says("others vouch for clients").await;
    Peer::connect(&of_new, LITE_06, Role::Both).await.leave().await;
    assert!(fails(&of_old).await.contains("BadSignature"));
    // Who is in stays.
    assert!(edge.connected());
    edge.leave().await;
    relay.stop().await.expect_success();
}
