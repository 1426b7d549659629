//! Signals in the midst of things: a busy process gets SIGCHLD at any time, and system calls may end early for it.

use crate::sys;
use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

/// Does something while a signal with a handler is sent to the calling thread every 100 µs.
pub fn while_interrupted<T>(act: impl FnOnce() -> T) -> T {
    let (target, done) = (sys::this_thread(), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                sys::interrupt(target).expect("the thread waits for this one");
                thread::sleep(Duration::from_micros(100));
            }
        });
        let _done = Done(&done);
        act()
    })
}

/// However the act ends, the signals end.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
