//! A large array, mapped where it is written: all of a mapping counts as this process' memory, used or not.

use super::{
    pins::{PinDir, PinsError},
    sys::{self, Access, MappedWords, SysError},
};
use mcs_proxy_ebpf::abi::{Element, MapName};
use std::os::fd::{AsFd as _, OwnedFd};

/// 512 KiB.
const WINDOW: usize = 1 << 16;

#[derive(Debug)]
pub(super) struct Windows {
    array: OwnedFd,
    words: usize,
    windows: Vec<Option<MappedWords>>,
}

impl Windows {
    /// Nothing is mapped yet.
    pub(super) fn open(dir: &PinDir, map: MapName) -> Result<Self, PinsError> {
        let array = dir.open(map, Access::ReadWrite)?;
        let words =
            sys::mapped_len(array.as_fd()).map_err(|source| PinsError::Sys { map: map.as_str(), source })?;
        let windows = (0..words.div_ceil(WINDOW)).map(|_| None).collect();
        Ok(Self { array, words, windows })
    }

    /// All of it, for once.
    pub(super) fn whole(&self) -> Result<MappedWords, SysError> {
        MappedWords::map(self.array.as_fd(), Access::ReadOnly)
    }

    /// Writes an element word by word: for one that no program reads. `Ok(None)`: out of range.
    pub(super) fn write_element(&mut self, index: usize, element: Element) -> Result<Option<()>, SysError> {
        let words = sys::element_words(element);
        let Some(first) = index.checked_mul(words.len()) else { return Ok(None) };
        for (place, word) in (first..).zip(words) {
            let Some(window) = self.window(place / WINDOW)? else { return Ok(None) };
            if window.store_release(place % WINDOW, word).is_none() {
                return Ok(None);
            }
        }
        Ok(Some(()))
    }

    /// Stores a word of an array whose elements are words. `Ok(None)`: out of range.
    pub(super) fn store(&mut self, index: usize, word: u64) -> Result<Option<()>, SysError> {
        Ok(self.window(index / WINDOW)?.and_then(|window| window.store_release(index % WINDOW, word)))
    }

    fn window(&mut self, number: usize) -> Result<Option<&MappedWords>, SysError> {
        let Some(window) = self.windows.get_mut(number) else { return Ok(None) };
        if window.is_none() {
            let first = number * WINDOW;
            let len = WINDOW.min(self.words - first);
            *window = Some(MappedWords::map_part(self.array.as_fd(), Access::ReadWrite, first, len)?);
        }
        Ok(window.as_ref())
    }
}
