//! Container networks over netlink: bridges, veth pairs, addresses, nftables, published ports, DNS answers.
