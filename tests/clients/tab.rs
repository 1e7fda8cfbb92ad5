//! Tabs with the released elements as a play sees them: people who publish a camera and a microphone,
//! and people who watch. All moments are by the clocks of their pages, which agree with ours.

use std::fmt::Display;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::actor::{Actor, Browser};
use crate::support::relay::Relay;

/// Milliseconds since 1970.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub struct Moment(f64);

impl Moment {
    pub fn now() -> Moment {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock that is set");
        Moment(since.as_secs_f64() * 1e3)
    }

    fn parse(told: &str) -> Moment {
        Moment(told.parse().unwrap_or_else(|_| panic!("not a moment: {told}")))
    }

    pub fn after(self, cause: Moment) -> Duration {
        Duration::from_secs_f64((self.0 - cause.0).max(0.0) / 1e3)
    }

    /// Fails the play unless it came soon enough after what caused it.
    #[track_caller]
    pub fn within(self, bound: Duration, cause: Moment, what: &str) {
        let took = self.after(cause);
        println!("{what}: {took:.2?}");
        assert!(took <= bound, "{what}: {took:.2?} is more than {bound:?}");
    }
}

impl Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The browser in which people open a page, and how that comes to the relay.
#[derive(Clone)]
pub struct Way {
    browser: Browser,
    url: String,
    /// As in a browser that has no WebTransport.
    by_socket: bool,
    /// What its publishers are told besides, unless a play says otherwise.
    more: &'static str,
}

impl Way {
    /// By WebTransport, in Chromium, by a page that asks over HTTP which certificate the relay has.
    pub fn to(relay: &Relay) -> Way {
        let url = relay.found_over_http().url();
        Way { browser: Browser::Chromium, url, by_socket: false, more: "" }
    }

    /// By `wss`, in Chromium, to where the relay serves HTTPS.
    pub fn by_secure_socket(relay: &Relay) -> Way {
        let url = format!("https://{}", relay.address());
        Way { browser: Browser::Chromium, url, by_socket: true, more: "" }
    }

    pub fn by_socket(self) -> Way {
        Way { by_socket: true, ..self }
    }

    /// In Firefox, whose encoder of H.264 is two seconds behind its camera.
    pub fn firefox(self) -> Way {
        Way { browser: Browser::Firefox, more: "&codec=vp8", ..self }
    }
}

/// A page in a window of its own.
pub struct Tab {
    actor: Actor,
    /// When the page began to load, which is where its own clock begins.
    opened: Moment,
}

impl Tab {
    async fn open(way: &Way, role: &str, name: &str, more: &str) -> Tab {
        let socket = if way.by_socket { "&socket" } else { "" };
        let query = format!("role={role}&url={}&name={name}{socket}{}{more}", way.url, way.more);
        let actor = Actor::window_in(way.browser, "player", &query).await;
        let opened = Moment::parse(&actor.tell("origin()").await);
        Tab { actor, opened }
    }

    pub fn opened(&self) -> Moment {
        self.opened
    }

    pub async fn reload(&mut self) {
        self.actor.tell("reload").await;
        self.opened = Moment::parse(&self.actor.tell("origin()").await);
    }

    /// The process behind the page ends.
    pub async fn crash(&self) {
        self.actor.tell("crash").await;
    }

    pub async fn close(self) {
        self.actor.tell("quit").await;
    }

    /// What its console shows in red.
    pub async fn errors(&self) -> String {
        self.actor.tell("errors").await
    }

    /// Presses a button, and tells when.
    async fn set(&self, attribute: &str, on: bool) -> Moment {
        Moment::parse(&self.actor.tell(format!("set('{attribute}',{on})")).await)
    }
}

/// `<moq-publish>` with a camera and a microphone.
pub struct Publisher(pub Tab);

impl Publisher {
    pub async fn open(way: &Way, name: &str, more: &str) -> Publisher {
        Publisher(Tab::open(way, "publisher", name, more).await)
    }

    /// When it had something to publish, and a session.
    pub async fn on_air(&self) -> Moment {
        Moment::parse(&self.0.actor.tell("onAir()").await)
    }

    pub async fn microphone(&self, on: bool) -> Moment {
        self.0.set("muted", !on).await
    }

    pub async fn camera(&self, on: bool) -> Moment {
        self.0.set("invisible", !on).await
    }
}

/// `<moq-watch>` with a canvas.
pub struct Viewer(pub Tab);

impl Viewer {
    pub async fn open(way: &Way, name: &str) -> Viewer {
        Viewer(Tab::open(way, "player", name, "").await)
    }

    /// When it painted the first picture that this publisher captured since then.
    pub async fn sees(&self, publisher: &Publisher, since: Moment) -> Moment {
        self.sees_wide(publisher, since, 0).await
    }

    /// The same of a picture that is so many pixels wide.
    pub async fn sees_wide(&self, publisher: &Publisher, since: Moment, width: u32) -> Moment {
        let call = format!("paints({},{since},{width})", publisher.0.opened);
        Moment::parse(&self.0.actor.tell(call).await)
    }

    /// When its loudspeaker came to what this publisher's microphone heard since then.
    pub async fn hears(&self, publisher: &Publisher, since: Moment) -> Moment {
        let call = format!("hears({},{since})", publisher.0.opened);
        Moment::parse(&self.0.actor.tell(call).await)
    }

    /// How old the oldest picture was that it painted since then.
    pub async fn oldest(&self, publisher: &Publisher, since: Moment) -> Duration {
        let call = format!("oldest({},{since})", publisher.0.opened);
        let told = self.0.actor.tell(call).await;
        Duration::from_secs_f64(told.parse::<f64>().expect("milliseconds") / 1e3)
    }

    /// Waits until it has painted so many pictures a second for so long.
    pub async fn sees_smoothly(&self, fps: u32, seconds: u32) {
        self.0.actor.tell(format!("smooth({},{seconds})", fps * seconds)).await;
    }

    pub async fn pause(&self, on: bool) -> Moment {
        self.0.set("paused", on).await
    }

    /// Chooses one of the renditions that the publisher offers.
    pub async fn choose(&self, rendition: &str) -> Moment {
        Moment::parse(&self.0.actor.tell(format!("target('{rendition}')")).await)
    }
}
