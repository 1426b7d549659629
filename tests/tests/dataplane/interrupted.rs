//! Programs are loaded whatever signals the process gets meanwhile.

use crate::place::{Place, SIZES, options};
use mcs_proxy::dataplane::{
    loader::{Options, load},
    sockets::SocketHook,
};
use mcs_proxy_ebpf::abi::SocketScope;
use mcs_proxy_tests::interrupt::while_interrupted;

#[test]
fn programs_are_loaded_by_a_process_that_is_sent_signals_all_the_time() {
    let place = Place::new("interrupted");
    let options = Options { socket_path: Some(SocketScope::Host), ..options(&SIZES) };
    while_interrupted(|| {
        let mut loaded = load(mcs_proxy::EBPF_OBJECT, &place.pins, &options).unwrap();
        for hook in SocketHook::ALL {
            loaded.programs.socket(hook).unwrap();
        }
    });
}
