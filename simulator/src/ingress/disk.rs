//! The simulated disk as one life of an ingress uses it: before each call that changes something, anything may happen.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use disk_log::Disk;

use super::mutation::Mutation;
use super::stage::Handle;
use crate::baton::{Go, Port};
use crate::being::INJECTED;
use tests::medium::Medium;

mod torn;

thread_local! {
    /// How the current thread waits.
    static PORT: RefCell<Option<Arc<Port>>> = const { RefCell::new(None) };
}

pub fn wait_at(port: &Arc<Port>) {
    PORT.set(Some(port.clone()));
}

/// Waits for the baton. Does not return to a killed thread.
pub fn pause(at: &'static str) {
    if pause_or_die(at) == Go::Die {
        Port::die();
    }
}

fn pause_or_die(at: &'static str) -> Go {
    let port = PORT.with_borrow(Clone::clone);
    port.map_or(Go::On, |port| port.pause_or_die(at))
}

/// A clone is another handle to the same disk.
#[derive(Clone, Default)]
pub struct Shelf {
    medium: Arc<Mutex<Medium>>,
    is_full: Arc<AtomicBool>,
}

impl Shelf {
    pub fn medium(&self) -> MutexGuard<'_, Medium> {
        self.medium.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_full(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::SeqCst);
    }
}

/// The disk, for one life.
pub struct SimDisk {
    shelf: Shelf,
    stage: Handle,
    alive: Arc<AtomicBool>,
}

impl SimDisk {
    pub fn new(shelf: Shelf, stage: Handle, alive: Arc<AtomicBool>) -> Self {
        Self { shelf, stage, alive }
    }

    /// Waits for the baton; an error if the call fails, or if the life has ended.
    fn turn(&self, at: &'static str) -> io::Result<()> {
        self.live()?;
        pause(at);
        self.fail(at)
    }

    fn live(&self) -> io::Result<()> {
        if self.alive.load(Ordering::SeqCst) { Ok(()) } else { Err(io::Error::other("its process is dead")) }
    }

    fn fail(&self, what: &str) -> io::Result<()> {
        let mut stage = self.stage.lock();
        let rate = stage.faults.disk;
        if stage.chance(rate) {
            stage.note(|| format!("the disk fails: {what}"));
            return Err(io::Error::other(format!("{what}, {INJECTED}")));
        }
        Ok(())
    }

    fn has_room(&self) -> io::Result<()> {
        if self.shelf.is_full.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn has(&self, mutation: Mutation) -> bool {
        self.stage.lock().has(mutation)
    }
}

impl Disk for SimDisk {
    fn names(&self) -> io::Result<Vec<String>> {
        self.live()?;
        Ok(self.shelf.medium().names())
    }

    fn open(&self, name: &str) -> io::Result<u64> {
        self.live()?;
        let found = self.shelf.medium().find(name);
        found.map(|file| file as u64).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn create(&self, name: &str) -> io::Result<u64> {
        self.turn("create a file")?;
        self.has_room()?;
        Ok(self.shelf.medium().create(name) as u64)
    }

    fn length(&self, file: u64) -> io::Result<u64> {
        self.live()?;
        Ok(self.shelf.medium().bytes(index(file)).len() as u64)
    }

    fn resize(&self, file: u64, bytes: u64) -> io::Result<()> {
        self.live()?;
        self.fail("resize a file")?;
        self.shelf.medium().resize(index(file), index(bytes));
        Ok(())
    }

    fn read(&self, file: u64, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        self.live()?;
        let medium = self.shelf.medium();
        let mut found = medium.bytes(index(file));
        let mended;
        if self.has(Mutation::TakesTornRecords) {
            mended = torn::mend(found);
            found = &mended;
        }
        let rest = found.get(index(at)..).unwrap_or_default();
        let read = rest.len().min(bytes.len());
        bytes[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write(&self, file: u64, bytes: &[u8], at: u64) -> io::Result<usize> {
        self.live()?;
        if pause_or_die("write") == Go::Die {
            // Bytes that the kernel had before the process died stay there.
            let given = self.stage.lock().random.usize(..=bytes.len());
            self.shelf.medium().write(index(file), index(at), &bytes[..given]);
            Port::die();
        }
        self.fail("write").inspect_err(|_| {
            let given = self.stage.lock().random.usize(..=bytes.len());
            self.shelf.medium().write(index(file), index(at), &bytes[..given]);
        })?;
        self.shelf.medium().write(index(file), index(at), bytes);
        Ok(bytes.len())
    }

    fn sync(&self, file: u64) -> io::Result<()> {
        self.live()?;
        pause("sync a file");
        self.fail("sync a file").inspect_err(|_| self.shelf.medium().fail_sync(index(file)))?;
        if !self.has(Mutation::AnswersBeforeSync) {
            self.shelf.medium().sync(index(file));
        }
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.turn("rename a file")?;
        if self.shelf.medium().rename(from, to) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.turn("remove a file")?;
        if self.shelf.medium().remove(name) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn sync_names(&self) -> io::Result<()> {
        self.turn("sync the directory")?;
        if !self.has(Mutation::NamesAreNotSynced) {
            self.shelf.medium().sync_names();
        }
        Ok(())
    }

    fn room(&self) -> io::Result<u64> {
        self.live()?;
        Ok(if self.shelf.is_full.load(Ordering::SeqCst) { 0 } else { u64::from(u32::MAX) })
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimDisk")
    }
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("a schedule is short")
}
