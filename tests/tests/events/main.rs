//! What the daemon tells a real API server, and what it makes of one that is hostile or hardly there.

mod absence;
mod bad_days;
mod health;
mod hostile;
mod relay;
mod restart;
mod stage;
mod versions;
mod warnings;
