//! The built program: what it says, and how it ends.

use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

fn link(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shardcast-link"));
    command.args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn client() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

fn ended(child: &mut Child) -> bool {
    // SAFETY: the child is not yet waited for, so its id is still its own.
    unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGTERM) };
    child.wait().unwrap().success()
}

#[test]
fn it_says_where_it_is_and_at_its_end_what_passed() {
    let relay = client();
    let to = relay.local_addr().unwrap().to_string();
    let mut child =
        link(&["--listen", "127.0.0.1:0", "--to", &to, "--delay", "1"]).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let address = line.split_whitespace().find_map(|word| word.strip_prefix("addr=")).unwrap();
    let (client, mut buf) = (client(), [0; 100]);
    client.send_to(b"there", address).unwrap();
    let (size, from) = relay.recv_from(&mut buf).unwrap();
    assert_eq!(&buf[..size], b"there");
    relay.send_to(b"and back", from).unwrap();
    let size = client.recv(&mut buf).unwrap();
    assert_eq!(&buf[..size], b"and back");
    assert!(ended(&mut child));
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("to the relay: 1 entered, 1 arrived (5 bytes), 0 lost"), "{rest}");
    assert!(rest.contains("to 1 clients: 1 entered, 1 arrived (8 bytes), 0 lost"), "{rest}");
}

#[test]
fn a_port_that_is_taken_and_a_wrong_option_are_one_line() {
    let taken = client();
    let address = taken.local_addr().unwrap().to_string();
    for (words, code, says) in [
        (["--listen", &address, "--to", "127.0.0.1:1", "--loss", "1"], 1, "cannot listen on"),
        (["--listen", "127.0.0.1:0", "--to", "127.0.0.1:1", "--rate", "8m"], 2, "--rate"),
    ] {
        let output = link(&words).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains(says), "{stderr}");
    }
}
