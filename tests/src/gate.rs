//! What stands between a process and bpf(2): each of its calls waits until it is decided upon here, and what is refused the
//! kernel never sees (seccomp_unotify(2)). Whatever thread it is of: they are counted together, in the order in which they come.

use crate::sys::Listener;
use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

/// Which calls fail, and with which error number. They are counted from 1, and anew with every rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rule {
    /// None.
    #[default]
    Pass,
    /// That one.
    One { number: usize, error: i32 },
    /// That one, and every `step`th after it.
    Every { number: usize, step: usize, error: i32 },
    /// All.
    All { error: i32 },
}

impl Rule {
    fn refusal(self, call: usize) -> Option<i32> {
        match self {
            Self::Pass => None,
            Self::One { number, error } => (call == number).then_some(error),
            Self::Every { number, step, error } => {
                (call >= number && (call - number).is_multiple_of(step)).then_some(error)
            }
            Self::All { error } => Some(error),
        }
    }
}

/// Of one process, as long as it lives.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    rule: Rule,
    calls: usize,
    refused: Vec<&'static str>,
}

impl State {
    fn decide(&mut self, command: u64) -> Option<i32> {
        self.calls += 1;
        let refusal = self.rule.refusal(self.calls);
        if refusal.is_some() {
            let command = usize::try_from(command).ok().and_then(|command| COMMANDS.get(command)).copied();
            self.refused.push(command.unwrap_or("another command"));
        }
        refusal
    }
}

impl Gate {
    /// Of a process whose command [`sys::gate`](crate::sys::gate) has prepared.
    pub(crate) fn open(process: u32, rule: Rule) -> io::Result<Self> {
        let listener = Listener::of(process)?;
        let gate = Self(Arc::new(Mutex::new(State { rule, ..State::default() })));
        let own = gate.clone();
        // It ends with the process.
        thread::spawn(move || {
            while let Ok(Some(call)) = listener.wait() {
                let refusal = own.state().decide(call.command);
                if listener.answer(&call, refusal).is_err() {
                    break;
                }
            }
        });
        Ok(gate)
    }

    /// From the next call on another rule holds.
    pub fn set(&self, rule: Rule) {
        *self.state() = State { rule, ..State::default() };
    }

    /// How many calls there have been under this rule.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.state().calls
    }

    /// The commands of those that failed under this rule.
    #[must_use]
    pub fn refused(&self) -> Vec<&'static str> {
        self.state().refused.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `enum bpf_cmd`.
const COMMANDS: [&str; 36] = [
    "BPF_MAP_CREATE",
    "BPF_MAP_LOOKUP_ELEM",
    "BPF_MAP_UPDATE_ELEM",
    "BPF_MAP_DELETE_ELEM",
    "BPF_MAP_GET_NEXT_KEY",
    "BPF_PROG_LOAD",
    "BPF_OBJ_PIN",
    "BPF_OBJ_GET",
    "BPF_PROG_ATTACH",
    "BPF_PROG_DETACH",
    "BPF_PROG_TEST_RUN",
    "BPF_PROG_GET_NEXT_ID",
    "BPF_MAP_GET_NEXT_ID",
    "BPF_PROG_GET_FD_BY_ID",
    "BPF_MAP_GET_FD_BY_ID",
    "BPF_OBJ_GET_INFO_BY_FD",
    "BPF_PROG_QUERY",
    "BPF_RAW_TRACEPOINT_OPEN",
    "BPF_BTF_LOAD",
    "BPF_BTF_GET_FD_BY_ID",
    "BPF_TASK_FD_QUERY",
    "BPF_MAP_LOOKUP_AND_DELETE_ELEM",
    "BPF_MAP_FREEZE",
    "BPF_BTF_GET_NEXT_ID",
    "BPF_MAP_LOOKUP_BATCH",
    "BPF_MAP_LOOKUP_AND_DELETE_BATCH",
    "BPF_MAP_UPDATE_BATCH",
    "BPF_MAP_DELETE_BATCH",
    "BPF_LINK_CREATE",
    "BPF_LINK_UPDATE",
    "BPF_LINK_GET_FD_BY_ID",
    "BPF_LINK_GET_NEXT_ID",
    "BPF_ENABLE_STATS",
    "BPF_ITER_CREATE",
    "BPF_LINK_DETACH",
    "BPF_PROG_BIND_MAP",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_of_the_calls_it_names() {
        let refused = |rule: Rule| (1..=9).filter(|&call| rule.refusal(call) == Some(12)).collect::<Vec<_>>();
        let error = 12;
        assert_eq!(refused(Rule::Pass), [0; 0]);
        assert_eq!(refused(Rule::One { number: 3, error }), [3]);
        assert_eq!(refused(Rule::Every { number: 3, step: 4, error }), [3, 7]);
        assert_eq!(refused(Rule::All { error }).len(), 9);
    }
}
