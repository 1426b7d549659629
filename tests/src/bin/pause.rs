//! The first container of every pod: holds its namespaces.

fn main() {
    loop {
        std::thread::park();
    }
}
