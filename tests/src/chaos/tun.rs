//! Network interfaces whose packets this program reads and writes (TUN devices of Linux).
//!
//! The one place of the tests that calls the system by hand: no crate of ours has this call.
#![expect(unsafe_code, reason = "TUNSETIFF is an ioctl that takes a structure of the kernel")]

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, ensure};

/// Length of a name in the kernel's structure, its end included.
const NAME_SIZE: usize = 16;
/// Packets of IP, without the four bytes of another header before them.
const IFF_TUN_NO_PI: i16 = 0x0001 | 0x1000;

/// `struct ifreq`, of which this call looks at the first two fields.
#[repr(C)]
struct Request {
    name: [u8; NAME_SIZE],
    flags: i16,
    rest: [u8; 22],
}

/// Makes an interface; it goes with the file. Each read takes a packet, each write gives one.
///
/// # Errors
/// The name is too long, or the system refuses.
pub(super) fn open(name: &str) -> Result<File> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").context("/dev/net/tun")?;
    ensure!(name.len() < NAME_SIZE, "{name} is too long");
    let mut request = Request { name: [0; NAME_SIZE], flags: IFF_TUN_NO_PI, rest: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: the descriptor is open for as long as `file` lives, and TUNSETIFF reads and writes one `struct ifreq`, as
    // large as `Request` (40 bytes on 64-bit Linux), which lives across the call.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    ensure!(done == 0, "TUNSETIFF {name}: {}", std::io::Error::last_os_error());
    Ok(file)
}
