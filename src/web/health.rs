//! Whether every shard turns: each is asked by mail. However many ask, no shard is asked more than
//! once at a time, nor more often than a pause allows.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::mail::ask_all;
use super::refusal;
use crate::limits::HEALTH_PAUSE;
use crate::mailbox::Outside;
use crate::shard::message::ToShard;

/// The shards that do not turn.
pub type Hanging = Vec<usize>;

pub type Asker = oneshot::Sender<Hanging>;

/// Asks, and puts what is found in words.
pub async fn ask(checks: &mpsc::UnboundedSender<Asker>) -> Response {
    let (asker, hanging) = oneshot::channel();
    let _ = checks.send(asker);
    match hanging.await.as_deref() {
        Ok([]) => "ok\n".into_response(),
        Ok(hanging) => {
            let hanging: Vec<String> = hanging.iter().map(usize::to_string).collect();
            let words = format!("no answer from shard {}", hanging.join(" "));
            refusal(StatusCode::SERVICE_UNAVAILABLE, words)
        }
        Err(_) => refusal(StatusCode::SERVICE_UNAVAILABLE, "the relay is stopping"),
    }
}

/// Answers those who ask, together: each with what was found after it asked.
pub async fn answer(shards: Vec<Outside<ToShard>>, mut asked: mpsc::UnboundedReceiver<Asker>) {
    let mut next_start = Instant::now();
    while let Some(first) = asked.recv().await {
        sleep_until(next_start).await;
        next_start = Instant::now() + HEALTH_PAUSE;
        let mut askers = vec![first];
        while let Ok(asker) = asked.try_recv() {
            askers.push(asker);
        }
        let hanging = hanging(&shards).await;
        for asker in askers {
            // One that has hung up needs none.
            let _ = asker.send(hanging.clone());
        }
    }
}

async fn hanging(shards: &[Outside<ToShard>]) -> Hanging {
    let turned = ask_all(shards, |turned| ToShard::Turn { turned }).await;
    (0..shards.len()).filter(|shard| turned[*shard].is_none()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Duration;

    use super::*;
    use crate::limits::SHARD_ANSWER_MAX;
    use crate::mailbox::{Post, mesh};

    /// Answers everything that has come, and says how much that was.
    fn turn(post: &mut Post<ToShard>) -> usize {
        let mut inbox = VecDeque::new();
        post.take(16, &mut inbox);
        let taken = inbox.len();
        for (_, mail) in inbox {
            let ToShard::Turn { turned } = mail else { panic!("{mail:?}") };
            let _ = turned.send(());
        }
        taken
    }

    #[tokio::test(start_paused = true)]
    async fn shards_that_do_not_turn_are_named() {
        let mut posts = mesh(3, 2);
        let shards: Vec<_> = posts.iter().map(Post::outside).collect();
        let (askers, asked) = mpsc::unbounded_channel();
        tokio::spawn(answer(shards, asked));
        let mut ask = async |turning: &[usize]| {
            let (asker, mut hanging) = oneshot::channel();
            askers.send(asker).unwrap();
            let begun = Instant::now();
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
                turning.iter().for_each(|shard| _ = turn(&mut posts[*shard]));
                if let Ok(hanging) = hanging.try_recv() {
                    return (hanging, begun.elapsed());
                }
            }
        };
        assert_eq!(ask(&[0, 1, 2]).await.0, [0; 0]);
        // The lane of the one that hangs fills in the end.
        for _ in 0..4 {
            let (hanging, took) = ask(&[0, 2]).await;
            assert_eq!(hanging, [1]);
            assert!(took <= SHARD_ANSWER_MAX + HEALTH_PAUSE, "{took:?}");
        }
        assert_eq!(ask(&[0, 1, 2]).await.0, [0; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_share_what_shards_are_asked() {
        let mut post = mesh(1, 16).pop().unwrap();
        let (askers, asked) = mpsc::unbounded_channel();
        tokio::spawn(answer(vec![post.outside()], asked));
        let mut asked = 0;
        let mut waiting = Vec::new();
        // For a second.
        for _ in 0..1000 {
            let (asker, hanging) = oneshot::channel();
            askers.send(asker).unwrap();
            waiting.push(hanging);
            tokio::time::sleep(Duration::from_millis(1)).await;
            asked += turn(&mut post);
        }
        assert!((9..=11).contains(&asked), "{asked}");
    }
}
