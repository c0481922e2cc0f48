//! The benches without peers: what needs none, and what CI builds.

fn main() {
    domicile_benches::run(domicile_benches::no_peers);
}
