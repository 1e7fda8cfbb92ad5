//! Bytes and descriptors over a unix socket (SCM_RIGHTS).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::limits::DESCRIPTORS_PER_MESSAGE;

/// What the kernel wants beside the descriptors of the longest message, in words so that it is aligned.
const CONTROL_WORDS: usize = (DESCRIPTORS_PER_MESSAGE * size_of::<RawFd>() + 64) / size_of::<u64>();

type Control = [MaybeUninit<u64>; CONTROL_WORDS];

/// One message with descriptors, or without.
pub fn send(
    socket: &OwnedFd,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
    flags: libc::c_int,
) -> io::Result<()> {
    assert!(descriptors.len() <= DESCRIPTORS_PER_MESSAGE, "they fit one message");
    let mut control: Control = [MaybeUninit::zeroed(); CONTROL_WORDS];
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let length = size_of_val(&numbers[..]) as u32;
    // SAFETY: a header of zeros is valid, and what it then points to outlives the call; the control
    // message is written within the buffer, which has room for the most descriptors.
    let sent = unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        if !numbers.is_empty() {
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = libc::CMSG_SPACE(length) as _;
            let rights = libc::CMSG_FIRSTHDR(&raw const header);
            (*rights).cmsg_level = libc::SOL_SOCKET;
            (*rights).cmsg_type = libc::SCM_RIGHTS;
            (*rights).cmsg_len = libc::CMSG_LEN(length) as _;
            std::ptr::copy_nonoverlapping(
                numbers.as_ptr().cast::<u8>(),
                libc::CMSG_DATA(rights),
                length as usize,
            );
        }
        libc::sendmsg(socket.as_raw_fd(), &raw const header, flags | libc::MSG_NOSIGNAL)
    };
    match sent {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// One message; how many bytes it has, and its descriptors. No bytes: the other end is gone.
pub fn receive(socket: &OwnedFd, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut control: Control = [MaybeUninit::zeroed(); CONTROL_WORDS];
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut descriptors = Vec::new();
    // SAFETY: as above; what the kernel has written of descriptors is ours alone.
    let (received, flags) = unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control) as _;
        let received = libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC);
        let mut next = match received {
            0.. => libc::CMSG_FIRSTHDR(&raw const header),
            _ => std::ptr::null_mut(),
        };
        while let Some(part) = next.as_ref() {
            if part.cmsg_level == libc::SOL_SOCKET && part.cmsg_type == libc::SCM_RIGHTS {
                let head = libc::CMSG_LEN(0) as usize;
                let count = (part.cmsg_len - head) / size_of::<RawFd>();
                let numbers = libc::CMSG_DATA(next).cast::<RawFd>();
                let owned = |at| OwnedFd::from_raw_fd(numbers.add(at).read_unaligned());
                descriptors.extend((0..count).map(owned));
            }
            next = libc::CMSG_NXTHDR(&raw const header, next);
        }
        (received, header.msg_flags)
    };
    match received {
        _ if flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 => {
            Err(io::Error::new(io::ErrorKind::InvalidData, "a message that is too long"))
        }
        0.. => Ok((received as usize, descriptors)),
        _ => Err(io::Error::last_os_error()),
    }
}
