//! The one integration binary: one link, one control plane shared by every test.
mod emulator;
