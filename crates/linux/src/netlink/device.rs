//! Moving a network device to another namespace together with its addresses.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};

use super::{Protocol, Socket};
use crate::{Error, ErrorKind, Result};

/// Moves the device `name` of the calling thread's network namespace into `namespace`, where it is called `new_name`
/// and set up. Its permanent addresses of global scope, which the kernel takes away on the move, are set again.
///
/// # Errors
/// `NotFound` without such a device; `AlreadyExists` when the name is taken in the namespace; `InvalidInput` for devices
/// that cannot be moved; `Denied` without CAP_NET_ADMIN in both.
pub fn move_device(name: &str, namespace: BorrowedFd<'_>, new_name: &str) -> Result<()> {
    let mut here = Socket::open(Protocol::Route)?;
    let mut there = Socket::open_in(namespace, Protocol::Route)?;
    let index = index_of(&mut here, name)?;
    let addresses = addresses_of(&mut here, name, index)?;
    let mut down = LinkMessage::default();
    down.header.index = index;
    down.header.change_mask = LinkFlags::Up;
    here.request(
        &format!("set network device {name} down"),
        &RouteNetlinkMessage::SetLink(down),
        0,
    )?;
    let mut moved = LinkMessage::default();
    moved.header.index = index;
    moved.attributes = vec![
        LinkAttribute::NetNsFd(namespace.as_fd().as_raw_fd()),
        LinkAttribute::IfName(new_name.to_owned()),
    ];
    here.request(
        &format!("move network device {name} into the container as {new_name}"),
        &RouteNetlinkMessage::SetLink(moved),
        0,
    )?;
    // Numbers belong to a namespace.
    let index = index_of(&mut there, new_name)?;
    let mut up = LinkMessage::default();
    up.header.index = index;
    up.header.flags = LinkFlags::Up;
    up.header.change_mask = LinkFlags::Up;
    let attempt = format!("set network device {new_name} up in the container");
    there.request(&attempt, &RouteNetlinkMessage::SetLink(up), 0)?;
    for mut address in addresses {
        address.header.index = index;
        let attempt = format!("set an address of network device {new_name} again");
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        match there.request(&attempt, &RouteNetlinkMessage::NewAddress(address), flags) {
            // The kernel may have kept it.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            other => other?,
        }
    }
    Ok(())
}

fn index_of(socket: &mut Socket, name: &str) -> Result<u32> {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(name.to_owned())];
    let attempt = format!("find network device {name}");
    match socket.get(&attempt, &RouteNetlinkMessage::GetLink(message))? {
        RouteNetlinkMessage::NewLink(link) => Ok(link.header.index),
        _ => Err(Error::new(ErrorKind::NotFound, attempt)),
    }
}

/// What can be set again elsewhere: neither what the kernel made itself (link-local), nor what a router leased.
fn addresses_of(socket: &mut Socket, name: &str, index: u32) -> Result<Vec<AddressMessage>> {
    let attempt = format!("list the addresses of network device {name}");
    let all = socket.dump(&attempt, &RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    let kept = all.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewAddress(address)
            if address.header.index == index
                && address.header.scope == AddressScope::Universe
                && address.header.flags.contains(AddressHeaderFlags::Permanent) =>
        {
            Some(address)
        }
        _ => None,
    });
    Ok(kept.map(portable).collect())
}

/// An address without what belongs to the old device: labels start with its name, and times count from its making.
fn portable(mut address: AddressMessage) -> AddressMessage {
    address.header.flags = AddressHeaderFlags::empty();
    address.attributes.retain_mut(|attribute| match attribute {
        AddressAttribute::Address(_)
        | AddressAttribute::Local(_)
        | AddressAttribute::Broadcast(_)
        | AddressAttribute::RoutePriority(_) => true,
        AddressAttribute::Flags(flags) => {
            // Duplicates were looked for on this network already.
            *flags = (*flags & AddressFlags::Noprefixroute) | AddressFlags::Nodad;
            true
        }
        _ => false,
    });
    address
}
