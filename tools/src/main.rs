//! The `roceway` command.

fn main() {}
