//! HTTP/1.1 for files: requests understood, connections served.

mod request;
mod serve;

pub(crate) use request::end_of_head;
pub(crate) use serve::{Reading, serve};

#[cfg(test)]
mod tests;
