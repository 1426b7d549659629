//! A node that no daemon looks after any more: what its maps say of endpoints has been true once.

use crate::{flow, maps};
use mcs_proxy_ebpf::abi::Verdict;

/// Whether a flow may begin. Those that have go on.
#[inline(always)]
pub(crate) fn refuse() -> Result<(), Verdict> {
    // A constant to the verifier: 0 takes the rest out.
    let timeout = maps::orphan_timeout();
    if timeout == 0 {
        return Ok(());
    }
    let beat = maps::heartbeat();
    // Signed: a beat may come between our two looks. None at all is a daemon's that is just starting.
    if beat != 0 && (flow::ticks().wrapping_sub(beat) as i32) > timeout as i32 {
        return Err(Verdict::Orphaned);
    }
    Ok(())
}
