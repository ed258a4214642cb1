//! A TUN device: the one place of the lab that needs the kernel's raw interface.
#![expect(unsafe_code, reason = "attaching a TUN device is an ioctl without a safe wrapper")]

use crate::Failure;
use crate::namespace::within;
use nix::libc::{IFF_NO_PI, IFF_TUN, IFNAMSIZ, c_char, c_int, c_short, ifreq};
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;

nix::ioctl_write_ptr_bad!(
    tunsetiff,
    nix::request_code_write!(b'T', 202, size_of::<c_int>()),
    ifreq
);

/// Creates the TUN device `interface` inside `namespace`. Reads and writes of the file are whole IP packets; the device
/// disappears with the file.
pub(crate) fn open(namespace: &str, interface: &str) -> Result<File, Failure> {
    let mut request = empty_request();
    if interface.len() >= IFNAMSIZ {
        return Err(format!("interface name {interface} is longer than {}", IFNAMSIZ - 1).into());
    }
    for (slot, byte) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *slot = c_char::from_ne_bytes([byte]);
    }
    // The device belongs to the namespace in which the file was opened.
    let device = within(namespace, || {
        let opened = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
        opened.map_err(|error| format!("/dev/net/tun: {error}").into())
    })?;
    // SAFETY: the descriptor is open, and `request` is a complete ifreq that outlives the call.
    unsafe { tunsetiff(device.as_raw_fd(), &raw const request) }
        .map_err(|error| format!("cannot create {interface} in {namespace}: {error}"))?;
    Ok(device)
}

fn empty_request() -> ifreq {
    // SAFETY: ifreq is plain data for which all zeros is a valid value.
    let mut request: ifreq = unsafe { std::mem::zeroed() };
    request.ifr_ifru.ifru_flags = (IFF_TUN | IFF_NO_PI) as c_short;
    request
}
