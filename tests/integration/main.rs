//! The one integration binary: one link, one control plane shared by every test.

mod api_validation;
mod architecture;
mod controller;
mod emulator;
mod support;
