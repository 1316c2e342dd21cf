//! A log in files of its own.
