//! The turn of a busy-polling core.
