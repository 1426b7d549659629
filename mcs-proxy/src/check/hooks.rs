//! Programs of others on the hooks that ours run on.

use super::fs_read;
use crate::{
    dataplane::{
        filters,
        pins::PinDir,
        sockets::{Place, SocketHook, SocketsError},
        sys::{self, Access, TcxHook},
    },
    observe::{line::Line, with_causes},
};
use mcs_proxy_ebpf::abi::Direction;
use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fs::File,
    os::fd::{AsFd as _, AsRawFd as _},
};

const PART: &str = "other programs";

/// What runs at one hook of an interface.
#[derive(Debug, Default, PartialEq, Eq)]
struct Hook {
    /// TCX programs, by their ids, in the order in which they run.
    programs: Vec<u32>,
    ours: Option<u32>,
    /// `cls_bpf` filters, by name. They run after all TCX programs.
    filters: Vec<String>,
}

/// By interface and hook.
type Hooks = BTreeMap<(String, Direction), Hook>;

pub(super) fn on_interfaces(pin_dir: &PinDir) -> Line {
    let mut hooks = Hooks::new();
    for (index, name) in interfaces() {
        for (hook, way) in [(TcxHook::Ingress, Direction::FromPod), (TcxHook::Egress, Direction::ToPod)] {
            let programs = match sys::tcx_query(index, hook) {
                Ok(programs) => programs,
                Err(error) if error.is_denied() => return unseen(PART, &error),
                // Older kernels have no such hook, and an interface may have gone.
                Err(_) => continue,
            };
            let programs = programs.into_iter().map(|(program, _)| program).collect();
            let ours = our_program(pin_dir, index, hook);
            hooks.insert((name.clone(), way), Hook { programs, ours, filters: Vec::new() });
        }
    }
    let filters = match filters_of_others() {
        Ok(filters) => filters,
        Err(error) => {
            return unseen(PART, &error);
        }
    };
    for filter in filters {
        let name = filter.program().unwrap_or_default().to_owned();
        hooks.entry((filter.interface, filter.direction)).or_default().filters.push(name);
    }
    judge(&hooks)
}

fn filters_of_others() -> Result<Vec<filters::Filter>, filters::FiltersError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(filters::find_others())
}

fn judge(hooks: &Hooks) -> Line {
    let meddling: Vec<_> = hooks.iter().filter_map(|((name, way), hook)| hook.meddles(name, *way)).collect();
    if let Some(first) = meddling.first() {
        let more =
            if meddling.len() > 1 { format!(", and {} more", meddling.len() - 1) } else { String::new() };
        return Line::warning(
            PART,
            format!("{first}{more}"),
            "if it rejects or redirects packets by their addresses, connections to Services break there: `bpftool net` and \
             `tc filter show dev INTERFACE egress` name it; --exclude-interface leaves such an interface alone",
        );
    }
    let others: BTreeMap<_, _> =
        hooks.iter().filter_map(|((name, _), hook)| Some((name, hook.others()?))).collect();
    match others.first_key_value() {
        None => Line::ok(PART, "none but ours on TCX hooks, and no cls_bpf filter"),
        Some((name, first)) => Line::ok(
            PART,
            format!(
                "on {} interfaces, as on {name} ({first}): ours lets each packet go on to them; `bpftool net` names them",
                others.len(),
            ),
        ),
    }
}

impl Hook {
    /// Whoever is not ours here.
    fn others(&self) -> Option<String> {
        let programs = self.programs.iter().filter(|program| Some(**program) != self.ours);
        let mut names: Vec<_> = programs.map(|program| format!("TCX program {program}")).collect();
        names.extend(self.filters.iter().map(|name| format!("cls_bpf filter {name}")));
        (!names.is_empty()).then(|| names.join(", "))
    }

    /// Whoever sees packets with a Service's address that are on their way between us and the pod: ours is to be first from
    /// the pod, and last to it.
    fn meddles(&self, interface: &str, way: Direction) -> Option<String> {
        let place = self.programs.iter().position(|program| Some(*program) == self.ours)?;
        let (between, when) = match way {
            Direction::FromPod => (&self.programs[..place], "before ours on packets from the pod"),
            Direction::ToPod => (&self.programs[place + 1..], "after ours on packets to the pod"),
        };
        let filters = if way == Direction::ToPod { &self.filters[..] } else { &[] };
        let hook = Self { programs: between.to_vec(), ours: None, filters: filters.to_vec() };
        Some(format!("on {interface} {} runs {when}", hook.others()?))
    }
}

pub(super) fn on_cgroup(pin_dir: &PinDir, place: &Result<Place, SocketsError>) -> Line {
    const PART: &str = "other socket programs";
    let cgroup = match place {
        Ok(place) => &place.cgroup,
        Err(error @ SocketsError::Probe { source, .. }) if source.is_denied() => return unseen(PART, error),
        Err(_) => return Line::ok(PART, "no cgroup2 to look at"),
    };
    let directory = match File::open(cgroup) {
        Ok(directory) => directory,
        Err(error) => return unseen(PART, &error),
    };
    let mut others = BTreeSet::new();
    for hook in [SocketHook::Connect4, SocketHook::Connect6, SocketHook::SendMsg4, SocketHook::SendMsg6] {
        let programs = match sys::prog_query(directory.as_raw_fd().cast_unsigned(), hook.number()) {
            Ok(programs) => programs,
            Err(error) if error.is_denied() => return unseen(PART, &error),
            // Older kernels lack some.
            Err(_) => continue,
        };
        let ours = usize::from(pin_dir.socket_link(hook).exists());
        if programs.len() > ours {
            others.insert(hook.as_str());
        }
    }
    if others.is_empty() {
        return Line::ok(PART, "none but ours on connect and sendmsg");
    }
    let hooks: Vec<_> = others.into_iter().collect();
    Line::warning(
        PART,
        format!(
            "another program is on {}: whichever translates first, the other sees a pod's address",
            hooks.join(", ")
        ),
        "`bpftool cgroup tree` names it; if it translates Services (Cilium's socket load balancing), say --socket-path \
         off or turn it off there",
    )
}

/// Nothing is said of what may not be looked at.
fn unseen(part: &'static str, error: &(dyn Error + 'static)) -> Line {
    Line::warning(part, with_causes(error), "run as root, or with CAP_NET_ADMIN")
}

fn our_program(pin_dir: &PinDir, index: u32, hook: TcxHook) -> Option<u32> {
    let direction = match hook {
        TcxHook::Ingress => Direction::FromPod,
        TcxHook::Egress => Direction::ToPod,
    };
    let link = sys::object_get(&pin_dir.link(index, direction), Access::ReadWrite).ok()?;
    Some(sys::tcx_link_info(link.as_fd()).ok()??.program_id)
}

/// Index and name of every interface of this network namespace, wherever /sys is from (proc_pid_net(5)).
fn interfaces() -> Vec<(u32, String)> {
    let text = fs_read("/proc/self/net/dev").unwrap_or_default();
    let names = text.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
    names.filter_map(|name| Some((sys::interface_index(&name)?, name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::line::Level;

    fn line(way: Direction, programs: &[u32], ours: Option<u32>, filters: &[&str]) -> Line {
        let filters = filters.iter().map(|&name| name.to_owned()).collect();
        let hook = Hook { programs: programs.to_vec(), ours, filters };
        judge(&Hooks::from([(("veth1".to_owned(), way), hook)]))
    }

    #[test]
    fn who_is_between_us_and_the_pod_is_warned_of_and_others_are_named() {
        for (way, programs, ours, filters, level, words) in [
            (Direction::FromPod, &[7][..], Some(7), &[][..], Level::Ok, "none but ours"),
            (
                Direction::FromPod,
                &[7, 8],
                Some(7),
                &["f"],
                Level::Ok,
                "veth1 (TCX program 8, cls_bpf filter f)",
            ),
            (
                Direction::FromPod,
                &[8, 7],
                Some(7),
                &[],
                Level::Warning,
                "on veth1 TCX program 8 runs before ours",
            ),
            (Direction::ToPod, &[8, 7], Some(7), &[], Level::Ok, "veth1 (TCX program 8)"),
            (
                Direction::ToPod,
                &[7, 8],
                Some(7),
                &[],
                Level::Warning,
                "on veth1 TCX program 8 runs after ours",
            ),
            (
                Direction::ToPod,
                &[7],
                Some(7),
                &["f"],
                Level::Warning,
                "on veth1 cls_bpf filter f runs after ours",
            ),
            // Not a pod's, or not ours to serve.
            (Direction::ToPod, &[8], None, &["f"], Level::Ok, "veth1 (TCX program 8, cls_bpf filter f)"),
        ] {
            let line = line(way, programs, ours, filters);
            assert!(line.level == level && line.says.contains(words), "{programs:?} {filters:?}: {line:?}");
        }
    }
}
