//! How deep the programs' stacks are, told from the object: this kernel may allow what others do not.

use mcs_proxy::EBPF_OBJECT;
use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SymbolKind, read::elf::ElfFile64};
use std::collections::BTreeMap;

/// `MAX_BPF_STACK`, for a chain of calls altogether.
const LIMIT: u64 = 512;
/// Every frame counts in steps of so many bytes, one without variables too (`check_max_stack_depth` of Linux before it
/// had `round_up_stack_depth`, and of any that does not compile programs; else 16).
const STEP: u64 = 32;

/// Section and offset, by which a function is known.
type Place = (usize, u64);

#[derive(Debug)]
struct Function {
    name: String,
    frame: u64,
    calls: Vec<Place>,
}

#[test]
fn no_programs_stack_is_too_deep_for_older_kernels() {
    let functions = functions();
    let called: Vec<_> = functions.values().flat_map(|function| &function.calls).collect();
    let programs: Vec<_> = functions.iter().filter(|(place, _)| !called.contains(place)).collect();
    for name in ["from_pod", "to_pod", "odd", "odd_back", "open", "hairpin", "peer", "connect4", "sendmsg6"] {
        assert!(programs.iter().any(|(_, program)| program.name == name), "{name}");
    }
    for (&place, program) in programs {
        let (depth, chain) = deepest(&functions, place);
        println!("{depth:4} {}: {chain}", program.name);
        assert!(depth <= LIMIT, "{} takes {depth} bytes of stack: {chain}", program.name);
    }
}

/// Programs, and what they call, by where they are.
fn functions() -> BTreeMap<Place, Function> {
    let file = ElfFile64::<object::Endianness>::parse(EBPF_OBJECT).unwrap();
    let mut functions = BTreeMap::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0) {
        let section = symbol.section_index().unwrap();
        let text = file.section_by_index(section).unwrap();
        let (start, end) = (symbol.address(), symbol.address() + symbol.size());
        let code = &text.data().unwrap()[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()];
        let calls = code.chunks_exact(8).zip((start..).step_by(8)).filter(|(instruction, _)| {
            // BPF_JMP | BPF_CALL with BPF_PSEUDO_CALL for its source.
            instruction[0] == 0x85 && instruction[1] >> 4 == 1
        });
        let calls = calls.map(|(instruction, at)| {
            let distance = i64::from(immediate(instruction)) + 1;
            let relocation = text.relocations().find(|(offset, _)| *offset == at);
            let Some((_, relocation)) = relocation else {
                return (section.0, at.checked_add_signed(distance * 8).unwrap());
            };
            let RelocationTarget::Symbol(target) = relocation.target() else { panic!("{relocation:?}") };
            let target = file.symbol_by_index(target).unwrap();
            let offset = if target.kind() == SymbolKind::Section { distance * 8 } else { 0 };
            (target.section_index().unwrap().0, target.address().checked_add_signed(offset).unwrap())
        });
        let function =
            Function { name: symbol.name().unwrap().to_owned(), frame: frame(code), calls: calls.collect() };
        functions.insert((section.0, start), function);
    }
    functions
}

fn immediate(instruction: &[u8]) -> i32 {
    i32::from_le_bytes(instruction[4..8].try_into().unwrap())
}

/// The lowest byte below the frame pointer, r10, that is read, written or pointed to.
fn frame(code: &[u8]) -> u64 {
    const FRAME_POINTER: u8 = 10;
    let mut lowest = 0;
    // The register that has just become a copy of it: a sum with a constant follows.
    let mut copy = None;
    for instruction in code.chunks_exact(8) {
        let (operation, to, from) = (instruction[0], instruction[1] & 15, instruction[1] >> 4);
        let offset = i64::from(i16::from_le_bytes(instruction[2..4].try_into().unwrap()));
        match operation & 7 {
            // BPF_LDX; BPF_ST and BPF_STX.
            1 if from == FRAME_POINTER => lowest = lowest.min(offset),
            2 | 3 if to == FRAME_POINTER => lowest = lowest.min(offset),
            // BPF_ALU64 | BPF_ADD with a constant.
            7 if operation == 0x07 && copy == Some(to) => lowest = lowest.min(immediate(instruction).into()),
            _ => {}
        }
        // BPF_ALU64 | BPF_MOV of a register.
        if operation == 0xbf && from == FRAME_POINTER {
            copy = Some(to);
        } else if copy == Some(to) {
            copy = None;
        }
    }
    lowest.unsigned_abs()
}

/// Of all chains of calls that begin with a function the one that takes most: how much, and which it is.
fn deepest(functions: &BTreeMap<Place, Function>, place: Place) -> (u64, String) {
    let function = &functions[&place];
    let own = function.frame.max(1).next_multiple_of(STEP);
    let said = format!("{} ({})", function.name, function.frame);
    let called = function.calls.iter().map(|&place| deepest(functions, place)).max();
    called.map_or((own, said.clone()), |(depth, chain)| (own + depth, format!("{said} > {chain}")))
}
