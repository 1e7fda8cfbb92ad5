//! A small HTTP client that says exactly what a play wants said, and shows how a connection ended.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longer than any answer may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(45);

/// An answer that has come to its end, whatever that was.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The body ended as HTTP has it end, and was not cut off.
    pub is_whole: bool,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    #[track_caller]
    pub fn expect(&self, status: u16, text: &str) {
        assert!(self.is_whole, "cut off: {self:?}");
        assert_eq!((self.status, self.text()), (status, text));
    }

    /// A refusal in one line.
    #[track_caller]
    pub fn refuses(&self, status: u16, words: &str) {
        assert_eq!(self.status, status, "{}", self.text());
        assert!(self.text().contains(words), "{:?} lacks {words:?}", self.text());
        assert_eq!(self.text().lines().count(), 1, "{:?}", self.text());
    }
}

/// A connection that has asked, and reads as the play likes.
pub struct Exchange<S = TcpStream> {
    pub stream: S,
    received: Vec<u8>,
}

impl Exchange {
    pub async fn begin(address: SocketAddr, request: &str) -> Exchange {
        let stream = TcpStream::connect(address).await.expect("a connection");
        Exchange::over(stream, request).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Exchange<S> {
    /// On a connection that there is.
    pub async fn over(mut stream: S, request: &str) -> Exchange<S> {
        stream.write_all(request.as_bytes()).await.expect("the request is taken");
        Exchange { stream, received: Vec::new() }
    }

    /// Waits until the body begins with these bytes, as far as it has come.
    pub async fn body_begins(&mut self, bytes: &[u8]) {
        loop {
            if let Some((_, body)) = head(&self.received) {
                let (body, _) = unchunk(body);
                assert!(bytes.starts_with(&body[..body.len().min(bytes.len())]), "another body");
                if body.len() >= bytes.len() {
                    return;
                }
            }
            let read = self.read().await;
            assert!(read > 0, "the connection ended early: {}", self.shown());
        }
    }

    /// Reads to the end of the connection; the time it took is the relay's.
    pub async fn finish(mut self) -> Option<Answer> {
        while self.read().await > 0 {}
        let (head, body) = head(&self.received)?;
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let (body, is_whole) = match length {
            Some((_, length)) => (body.to_vec(), length.parse() == Ok(body.len())),
            None => unchunk(body),
        };
        Some(Answer { status: status.parse().expect("a number"), headers, body, is_whole })
    }

    /// 0 where the connection has ended in any way.
    async fn read(&mut self) -> usize {
        let read = self.stream.read_buf(&mut self.received);
        let read = tokio::time::timeout(PATIENCE, read).await;
        read.unwrap_or_else(|_| panic!("nothing for {PATIENCE:?}")).unwrap_or(0)
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.received[..self.received.len().min(1000)]).into_owned()
    }
}

fn head(received: &[u8]) -> Option<(&str, &[u8])> {
    let at = received.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some((std::str::from_utf8(&received[..at]).expect("a head is text"), &received[at + 4..]))
}

/// The content of as many chunks as are here, and whether the last of all is among them.
fn unchunk(mut chunked: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(line) = chunked.windows(2).position(|two| two == b"\r\n") {
        let size = std::str::from_utf8(&chunked[..line]).expect("a size is text");
        let size = usize::from_str_radix(size, 16).expect("a size");
        if size == 0 {
            return (body, true);
        }
        let content = &chunked[line + 2..];
        let Some(next) = content.get(size + 2..) else {
            body.extend_from_slice(&content[..content.len().min(size)]);
            break;
        };
        body.extend_from_slice(&content[..size]);
        chunked = next;
    }
    (body, false)
}

/// One request of any method, with nothing said beyond what has to be.
pub async fn ask(address: SocketAddr, method: &str, target: &str, more: &str) -> Answer {
    let request = format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\n{more}\r\n");
    let answer = Exchange::begin(address, &request).await.finish().await;
    answer.unwrap_or_else(|| panic!("no answer to {method} {target}"))
}

pub async fn get(address: SocketAddr, target: &str) -> Answer {
    ask(address, "GET", target, "").await
}
