//! Events at a real API server.

mod hostile;
mod stage;
mod warnings;
