//! Inputs made of others.

use shardcast::wire::{VARINT_MAX, encode_varint};

use crate::random::Random;
use crate::script::Script;

/// Bytes of one input. What is longer finds nothing that this does not, and takes its time.
const INPUT_BYTES_MAX: usize = 4096;

/// Numbers at which something may change: lengths of varints, of messages and of what counts.
const EDGES: [u64; 20] = [
    0,
    1,
    2,
    31,
    32,
    33,
    63,
    64,
    255,
    8191,
    8192,
    16_383,
    16_384,
    65_536,
    (32 << 20) + 1,
    (1 << 30) - 1,
    1 << 30,
    VARINT_MAX / 2,
    VARINT_MAX - 1,
    VARINT_MAX,
];

/// Another input, made of one or two of `pool`.
pub fn mutate(pool: &[Vec<u8>], is_script: bool, random: &mut Random) -> Vec<u8> {
    let mut input = pool[random.below(pool.len())].clone();
    // Mostly little is changed, so that what follows is still reached.
    let changes = 1 + [0, 1, 3, 15][random.below(4)];
    for _ in 0..changes {
        let other = &pool[random.below(pool.len())];
        if is_script && random.chance(85) {
            let (mut script, other) = (Script::parse(&input), Script::parse(other));
            change_steps(&mut script, &other, random);
            input = script.encode();
        } else {
            change_bytes(&mut input, other, random);
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}

fn change_steps(script: &mut Script, other: &Script, random: &mut Random) {
    let steps = &mut script.steps;
    if steps.is_empty() {
        steps.clone_from(&other.steps);
        return;
    }
    let at = random.below(steps.len());
    match random.below(12) {
        0 => script.setting[random.below(2)] = random.next() as u8,
        1 => {
            steps.remove(at);
        }
        2 => {
            let again = steps[at].clone();
            steps.insert(random.below(steps.len()), again);
        }
        3 => {
            let with = random.below(steps.len());
            steps.swap(at, with);
        }
        // The end of another conversation, or a step of one.
        4 if !other.steps.is_empty() => {
            steps.truncate(at);
            steps.extend_from_slice(&other.steps[random.below(other.steps.len())..]);
        }
        5 if !other.steps.is_empty() => {
            steps.insert(at, other.steps[random.below(other.steps.len())].clone());
        }
        6 => steps[at].kind = random.next() as u8,
        7 => steps[at].which = random.next() as u8 % 16,
        8 => steps.truncate(at + 1),
        _ => {
            let no_other = Vec::new();
            let from = other.steps.get(at).map_or(&no_other, |step| &step.bytes);
            change_bytes(&mut steps[at].bytes, from, random);
        }
    }
}

fn change_bytes(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let here = input.get(at).copied();
    match (random.below(10), here) {
        (0, Some(byte)) => input[at] = byte ^ 1 << random.below(8),
        (1, Some(_)) => input[at] = random.next() as u8,
        (2, Some(byte)) => input[at] = byte.wrapping_add([1, 255][random.below(2)]),
        (3, Some(_)) => {
            let end = (at + 1 + random.below(16)).min(input.len());
            input.drain(at..end);
        }
        (4, Some(_)) => input.truncate(at),
        (5, Some(_)) => {
            let end = (at + 1 + random.below(64)).min(input.len());
            let again = input[at..end].to_vec();
            for _ in 0..[1, 1, 2, 40][random.below(4)] {
                input.splice(at..at, again.iter().copied());
            }
        }
        (6, _) if !other.is_empty() => {
            let from = random.below(other.len());
            input.truncate(at);
            input.extend_from_slice(&other[from..]);
        }
        (7 | 8, _) => {
            let mut edge = Vec::new();
            encode_varint(EDGES[random.below(EDGES.len())], &mut edge);
            // In the place of a number, or before it.
            let over = if random.chance(70) { (at + 1).min(input.len()) } else { at };
            input.splice(at..over, edge);
        }
        _ => {
            let more: Vec<u8> = (0..=random.below(8)).map(|_| random.next() as u8).collect();
            input.splice(at..at, more);
        }
    }
    // Repetition must not grow without end.
    input.truncate(2 * INPUT_BYTES_MAX);
}
