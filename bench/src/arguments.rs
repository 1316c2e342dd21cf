//! Arguments that several measurements have.

use clap::{Arg, value_parser};

/// A flag with a whole number.
pub fn number(name: &'static str, help: &'static str, default: &'static str) -> Arg {
    let arg = Arg::new(name).long(name).value_name("N").value_parser(value_parser!(u32)).help(help);
    if default.is_empty() { arg } else { arg.default_value(default) }
}
