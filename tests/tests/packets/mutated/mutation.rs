//! The generator: the same packets for the same seed.

use super::Sample;

/// The kernel's test run wants an Ethernet header and a whole IP header.
const SHORTEST: usize = 14 + 40;

/// Protocols and extension headers, among them those that nobody translates.
const NUMBERS: [u8; 11] = [0, 1, 6, 17, 43, 44, 50, 51, 58, 60, 132];

pub(super) struct Generator(u64);

impl Generator {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// One of the samples, with up to three faults.
    pub(super) fn mutated(&mut self, samples: &[Sample]) -> Sample {
        let (program, mut bytes) = samples[self.below(samples.len())].clone();
        for _ in 0..self.below(4) {
            self.bend(&mut bytes, samples);
        }
        bytes.resize(bytes.len().max(SHORTEST), 0);
        (program, bytes)
    }

    fn bend(&mut self, bytes: &mut Vec<u8>, samples: &[Sample]) {
        // Behind the Ethernet header, which says what the kernel's test run takes the rest for.
        let at = 14 + self.below(bytes.len() - 14);
        match self.below(8) {
            0 | 1 => bytes[at] ^= 1 << self.below(8),
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
            3 => bytes.truncate(at.max(SHORTEST)),
            4 => bytes.extend((0..self.below(64)).map(|_| 0xa5)),
            // The lengths of IPv4 and IPv6, a little too large or too small.
            5 => {
                let low = if bytes[12] == 8 { 17 } else { 19 };
                bytes[low] = bytes[low].wrapping_add(self.below(17) as u8).wrapping_sub(8);
            }
            6 => {
                let at = if bytes[12] == 8 { 23 } else { [20, 54][self.below(2)] };
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = NUMBERS[self.below(NUMBERS.len())];
                }
            }
            // A piece of another packet in the same place.
            _ => {
                let other = &samples[self.below(samples.len())].1;
                let end = (at + 1 + self.below(24)).min(bytes.len()).min(other.len());
                if at < end {
                    bytes[at..end].copy_from_slice(&other[at..end]);
                }
            }
        }
    }

    /// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as usize % bound
    }
}
