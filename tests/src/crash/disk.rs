//! A disk whose power can be cut: an ext4 file system of its own on a loop device.
//!
//! `xfs_io shutdown` without a flush stops the file system at once: what was synced is on the device, what was not
//! is gone, and every later call of whoever still runs fails. Unmounting and mounting it is the start after a power
//! cut, with ext4's own recovery.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::cluster::text;

/// Longest wait for a file system that is still in use by a process that was just killed.
const PATIENCE: Duration = Duration::from_secs(20);

/// An ext4 file system on a loop device. Unmounted and removed when dropped.
pub struct PowerDisk {
    image: tempfile::TempDir,
    mount: PathBuf,
    device: String,
    is_mounted: bool,
}

fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output =
        Command::new(program).args(arguments).output().with_context(|| format!("{program} is missing"))?;
    ensure!(output.status.success(), "{program} {arguments:?}: {}", text(&output).trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A loop device over a file.
fn attach(file: &Path) -> Result<String> {
    run("losetup", &["--find", "--show", file.to_str().context("a path that is no text")?])
}

impl PowerDisk {
    /// Why no power can be cut on this machine, if so.
    #[must_use]
    pub fn missing() -> Option<String> {
        for program in ["xfs_io", "mkfs.ext4", "losetup", "mount", "umount"] {
            if Command::new(program).arg("-V").output().is_err() {
                return Some(format!("{program} is not installed"));
            }
        }
        match PowerDisk::new(16 << 20).and_then(|mut disk| disk.cut().and_then(|()| disk.restore())) {
            Ok(()) => None,
            Err(error) => Some(format!("no file system can be mounted and shut down here: {error:#}")),
        }
    }

    /// A fresh, empty file system of so many bytes.
    ///
    /// # Errors
    /// Root's rights, loop devices or programs are missing.
    pub fn new(bytes: u64) -> Result<PowerDisk> {
        let image = tempfile::tempdir()?;
        let file = image.path().join("image");
        std::fs::File::create(&file)?.set_len(bytes)?;
        let mount = image.path().join("disk");
        std::fs::create_dir(&mount)?;
        let name = file.to_str().context("a path that is no text")?;
        run("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=1", name])?;
        let device = attach(&file)?;
        let mut disk = PowerDisk { image, mount, device, is_mounted: false };
        disk.mount()?;
        Ok(disk)
    }

    fn mount_text(&self) -> Result<&str> {
        self.mount.to_str().context("a path that is no text")
    }

    fn mount(&mut self) -> Result<()> {
        run("mount", &["-t", "ext4", &self.device, self.mount_text()?])?;
        self.is_mounted = true;
        Ok(())
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// A folder beside it on a disk that does not fail, for what the test itself keeps.
    #[must_use]
    pub fn beside(&self) -> &Path {
        self.image.path()
    }

    /// Cuts the power: nothing more reaches the device.
    ///
    /// # Errors
    /// The file system does not take the request.
    pub fn cut(&mut self) -> Result<()> {
        run("xfs_io", &["-x", "-c", "shutdown", self.mount_text()?]).map(drop)
    }

    /// Mounts it again after a cut. Whoever used it must have ended.
    ///
    /// # Errors
    /// It stays in use, or its recovery fails.
    pub fn restore(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = run("umount", &[self.mount_text()?]) {
            if Instant::now() > deadline {
                bail!(error);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.is_mounted = false;
        // By another device: a mount namespace that somebody made meanwhile holds on to the file system that was shut
        // down, and mounting its device again would give that one back.
        run("losetup", &["-d", &self.device])?;
        self.device = attach(&self.image.path().join("image"))?;
        self.mount()
    }
}

impl Drop for PowerDisk {
    fn drop(&mut self) {
        if self.is_mounted {
            let _ = Command::new("umount").arg("-l").arg(&self.mount).status();
        }
        let _ = Command::new("losetup").args(["-d", &self.device]).status();
    }
}
