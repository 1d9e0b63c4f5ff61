//! A small disk under test that can be filled: a file system of its own where the test may mount one, else a folder
//! of this machine's disk.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustydb_env::Env;

use crate::cluster::text;

/// A folder on a disk that can be filled. It is unmounted and removed when dropped.
pub struct Volume {
    folder: tempfile::TempDir,
    /// Whether it is a file system of its own.
    is_mounted: bool,
    /// Free bytes below which a node on it must refuse writes.
    reserve: u64,
}

/// Size of a mounted volume.
const SIZE: u64 = 192 << 20;

impl Volume {
    /// A volume; with [`Volume::reserve`] as `log.disk_reserve` of a node on it, [`Volume::fill`] makes its disk full.
    pub fn new() -> Result<Volume> {
        let folder = tempfile::tempdir()?;
        let options = format!("size={SIZE},mode=700");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "rustydb-test"])
            .arg(folder.path())
            .output();
        let is_mounted = mount.is_ok_and(|output| output.status.success());
        let mut volume = Volume { folder, is_mounted, reserve: 48 << 20 };
        if !is_mounted {
            // Whoever may not mount makes the reserve so large that a file of moderate size uses it up.
            volume.reserve = volume.free()?.saturating_sub(Volume::ballast_on_shared_disk() / 2);
        }
        Ok(volume)
    }

    fn ballast_on_shared_disk() -> u64 {
        1 << 30
    }

    /// Where a node may keep its data.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Whether this volume can be full while others are not.
    pub fn is_its_own(&self) -> bool {
        self.is_mounted
    }

    /// For `log.disk_reserve`, in bytes.
    pub fn reserve(&self) -> u64 {
        self.reserve
    }

    /// Free bytes.
    pub fn free(&self) -> Result<u64> {
        Ok(Env::os().disk().available_bytes(self.folder.path())?)
    }

    fn ballast(&self) -> PathBuf {
        self.folder.path().join("ballast")
    }

    /// Takes all free space; of a shared disk, what makes it less than the reserve.
    pub fn fill(&self) -> Result<()> {
        if !self.is_mounted {
            let output = Command::new("fallocate")
                .args(["-l", &Volume::ballast_on_shared_disk().to_string()])
                .arg(self.ballast())
                .output()?;
            ensure!(output.status.success(), "fallocate: {}", text(&output));
            return Ok(());
        }
        let mut file = File::options().create(true).append(true).open(self.ballast())?;
        let zeros = vec![0_u8; 64 << 10];
        loop {
            match file.write_all(&zeros) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error).context("filling the volume"),
            }
        }
    }

    /// Gives back what [`Volume::fill`] took.
    pub fn free_up(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.ballast())?)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if self.is_mounted {
            // Lazily, since a process that was just killed may still be going away.
            let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
        }
    }
}
