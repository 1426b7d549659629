//! SCTP's checksum (RFC 9260, appendix A) updated for a change instead of computed anew.
//!
//! A CRC is linear: two messages of one length that differ in some bits have checksums that differ in the remainder
//! of those bits alone, and a remainder moves past bytes by a multiplication with x⁸ⁿ. So the change of a port costs
//! a few table look-ups, however long the packet is.

/// The polynomial of CRC32c, its lowest power in the highest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// Lengths have this many bits: an IP packet's.
const STEPS: usize = 16;

/// Remainders by every half-byte of what is moved.
type Table = [[u32; 16]; 8];

/// Moves a remainder past 2ᵏ bytes, by k.
static PAST: [Table; STEPS] = tables();

/// How the checksum of a packet of `length` bytes changes if its first four bytes change by `change`, as they lie in
/// memory: to be xored to the checksum as it lies in memory.
#[inline(always)]
pub fn difference(change: u32, length: u32) -> u32 {
    let mut remainder = change;
    let mut step = 0;
    while step < STEPS {
        // No branch: the verifier would walk the rest of the program once for each way.
        let taken = ((length >> step) & 1).wrapping_neg();
        remainder ^= (remainder ^ past(&PAST[step], remainder)) & taken;
        step += 1;
    }
    remainder
}

#[inline(always)]
const fn past(table: &Table, remainder: u32) -> u32 {
    let mut sum = 0;
    let mut digit = 0;
    while digit < 8 {
        sum ^= table[digit][(remainder >> (4 * digit)) as usize & 15];
        digit += 1;
    }
    sum
}

const fn tables() -> [Table; STEPS] {
    let mut tables = [[[0; 16]; 8]; STEPS];
    let mut step = 0;
    while step < STEPS {
        let mut digit = 0;
        while digit < 8 {
            let mut value = 1;
            while value < 16 {
                let bits = (value as u32) << (4 * digit);
                tables[step][digit][value] = if step == 0 {
                    past_byte(bits)
                } else {
                    // Twice as far as the step before.
                    past(&tables[step - 1], past(&tables[step - 1], bits))
                };
                value += 1;
            }
            digit += 1;
        }
        step += 1;
    }
    tables
}

const fn past_byte(mut remainder: u32) -> u32 {
    let mut bit = 0;
    while bit < 8 {
        remainder = (remainder >> 1) ^ (POLYNOMIAL & (remainder & 1).wrapping_neg());
        bit += 1;
    }
    remainder
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bit by bit, as RFC 9260 defines it.
    fn crc32c(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |remainder, byte| past_byte(remainder ^ u32::from(*byte)))
    }

    #[test]
    fn the_reference_is_crc32c() {
        // The check value of the catalogue of CRCs, and RFC 3720, B.4.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn an_updated_checksum_equals_one_computed_anew() {
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 32) as u32
        };
        for length in (16..600).chain([1480, 1500, 4096, 65_515, 65_535]) {
            let mut packet: Vec<u8> = (0..length).map(|_| next() as u8).collect();
            let before = crc32c(&packet);
            let ports = u32::from_le_bytes([packet[0], packet[1], packet[2], packet[3]]);
            let change = next();
            packet[..4].copy_from_slice(&(ports ^ change).to_le_bytes());
            assert_eq!(before ^ difference(change, length), crc32c(&packet), "{length} bytes");
        }
    }
}
