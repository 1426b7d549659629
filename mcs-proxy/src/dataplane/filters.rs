//! The clsact filters that stand in for TCX, as the kernel lists them: they have no pin, and whoever has lost track of the
//! interfaces finds them here.

use super::{
    links::{FILTER_HANDLE, filter_priority},
    pins::link_suffix,
};
use futures::TryStreamExt as _;
use mcs_proxy_ebpf::abi::Direction;
use rtnetlink::{
    Handle,
    packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        link::LinkAttribute,
        tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
    },
};
use std::{fmt, io};

/// A filter of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    pub interface: String,
    pub direction: Direction,
    /// By which the kernel takes it off again.
    message: TcMessage,
}

#[derive(Debug, thiserror::Error)]
pub enum FiltersError {
    #[error("rtnetlink: {0}")]
    Connect(#[from] io::Error),
    #[error("rtnetlink: {0}")]
    Request(#[from] rtnetlink::Error),
    #[error("{filter}: {reason}")]
    Remove { filter: String, reason: String },
}

impl fmt::Display for Filter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.interface, link_suffix(self.direction))
    }
}

/// All of ours on the interfaces of this network namespace, those from the pods first.
pub async fn find() -> Result<Vec<Filter>, FiltersError> {
    let mut found = all().await?;
    found.retain(Filter::is_ours);
    found.sort_by_key(|filter| filter.direction == Direction::ToPod);
    Ok(found)
}

/// Those of others that are BPF programs (`cls_bpf`).
pub async fn find_others() -> Result<Vec<Filter>, FiltersError> {
    let mut found = all().await?;
    // The kernel lists each priority once more, without a filter.
    found.retain(|filter| filter.is_bpf() && filter.program().is_some() && !filter.is_ours());
    Ok(found)
}

/// Filters of every kind, in the order in which they run.
async fn all() -> Result<Vec<Filter>, FiltersError> {
    let handle = connect()?;
    let mut found = Vec::new();
    let mut links = handle.link().get().execute();
    while let Some(link) = links.try_next().await? {
        let name = link.attributes.iter().find_map(|attribute| {
            if let LinkAttribute::IfName(name) = attribute { Some(name.clone()) } else { None }
        });
        let interface = name.unwrap_or_default();
        for direction in [Direction::FromPod, Direction::ToPod] {
            let mut filter = handle.traffic_filter(link.header.index.cast_signed());
            let listed = match direction {
                Direction::FromPod => filter.get().ingress(),
                Direction::ToPod => filter.get().egress(),
            };
            let mut listed = listed.execute();
            // An interface may go meanwhile.
            while let Ok(Some(message)) = listed.try_next().await {
                found.push(Filter { interface: interface.clone(), direction, message });
            }
        }
    }
    Ok(found)
}

impl Filter {
    /// What the kernel keeps as its name; aya names it after the program, tc after its file and section.
    #[must_use]
    pub fn program(&self) -> Option<&str> {
        self.message.attributes.iter().find_map(|attribute| {
            let TcAttribute::Options(options) = attribute else { return None };
            options.iter().find_map(|option| {
                if let TcOption::Bpf(TcFilterBpfOption::ProgName(name)) = option {
                    Some(name.as_str())
                } else {
                    None
                }
            })
        })
    }

    fn is_bpf(&self) -> bool {
        let mut attributes = self.message.attributes.iter();
        attributes.any(|attribute| matches!(attribute, TcAttribute::Kind(kind) if kind == "bpf"))
    }

    /// By what the kernel keeps of it: kind, name, priority, and the handle that nobody else uses.
    fn is_ours(&self) -> bool {
        let header = &self.message.header;
        self.is_bpf()
            && self.program() == Some(program(self.direction))
            && header.handle == TcHandle::from(u32::from(FILTER_HANDLE))
            && header.info >> 16 == u32::from(filter_priority(self.direction))
    }
}

const fn program(direction: Direction) -> &'static str {
    match direction {
        Direction::FromPod => "from_pod",
        Direction::ToPod => "to_pod",
    }
}

/// Takes a filter off; one that has gone is no error.
pub async fn remove(filter: &Filter) -> Result<(), FiltersError> {
    use futures::StreamExt as _;
    let mut message = TcMessage::default();
    message.header = filter.message.header.clone();
    message.attributes.push(TcAttribute::Kind("bpf".into()));
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::DelTrafficFilter(message));
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK;
    // The connection ends with its handle.
    let mut handle = connect()?;
    let mut answers = handle.request(request)?;
    // Nothing but an end of the answers says that it is done.
    while let Some(answer) = answers.next().await {
        if let NetlinkPayload::Error(error) = answer.payload
            && let Some(code) = error.code
            && !matches!(-code.get(), libc::ENOENT | libc::ENODEV)
        {
            let reason = error.to_io().to_string();
            return Err(FiltersError::Remove { filter: filter.to_string(), reason });
        }
    }
    Ok(())
}

fn connect() -> Result<Handle, FiltersError> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    Ok(handle)
}
