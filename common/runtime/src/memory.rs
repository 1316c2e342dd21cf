//! How the kernel gives memory to this process.

use tracing::debug;

/// Memory is given in pages of 4 KiB. The allocator takes and returns its pages often; huge ones make the process a fifth
/// larger, and were not seen to make it faster.
pub fn without_huge_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        debug!("huge pages stay: {error}");
    }
}
