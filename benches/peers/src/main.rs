//! The benches, with the peers of this library beside it.

#![forbid(unsafe_code)]

mod peers;

fn main() {
    domicile_benches::run(peers::all);
}
