//! Access control from bytes to answers: tokens and keys of other programs, everything that is to be
//! refused, grants against a matcher of their own, and what nobody means to send.

mod grants;
mod keys;
mod minted;
mod mutated;
mod refused;
mod support;
mod vectors;
