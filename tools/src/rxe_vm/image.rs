//! The initramfs of a guest: scripts, modules of the kernel in the order in which they are loaded,
//! programs and their libraries. Owns what is in it and where; never starts a guest.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::archive::Archive;
use super::programs;
use super::scenario::Scenario;
use super::{Trouble, io};

/// What the guest needs of the kernel. Those marked optional are part of some kernels only:
/// rdma_rxe asks the crypto layer for crc32 by name, which no list of dependencies shows.
const MODULES: [(&str, Need); 8] = [
    ("crc32_generic", Need::Optional),
    ("virtio_pci", Need::Always),
    ("virtio_net", Need::Always),
    ("veth", Need::Always),
    ("tun", Need::Always),
    ("sch_netem", Need::Always),
    ("rdma_ucm", Need::Always),
    ("rdma_rxe", Need::Always),
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Need {
    Always,
    Optional,
}

/// Guest scripts, part of this program so that it and they are of one version.
const SCRIPTS: [(&str, &str); 3] = [
    ("/init", include_str!("guest/init.sh")),
    ("/rxe-vm/side.sh", include_str!("guest/side.sh")),
    ("/rxe-vm/lib.sh", include_str!("guest/lib.sh")),
];

/// Users of the guest.
const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/tmp:/bin/sh\n";

/// An unpacked kernel package.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kernel {
    root: PathBuf,
    /// Its release, as `uname -r` says it.
    pub release: String,
}

impl Kernel {
    /// The one kernel of a folder that has `boot/vmlinuz-*` and `lib/modules/*`.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn open(root: &Path) -> Result<Self, Trouble> {
        let modules = root.join("lib/modules");
        let entries = std::fs::read_dir(&modules).map_err(|error| {
            io(modules.display(), &error).remedy("delete the folder; it is fetched again")
        })?;
        let release = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .max()
            .ok_or_else(|| Trouble::new(format!("{} is empty", modules.display())))?;
        Ok(Self { root: root.to_owned(), release })
    }

    /// The kernel itself.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.root.join("boot").join(format!("vmlinuz-{}", self.release))
    }

    /// Files of the modules, each after those that it needs, none twice.
    fn modules(&self) -> Result<Vec<PathBuf>, Trouble> {
        let mut files: Vec<PathBuf> = Vec::new();
        for (module, need) in MODULES {
            let output = Command::new("modprobe")
                .arg("-d")
                .arg(&self.root)
                .args(["-S", &self.release, "--show-depends", module])
                .output()
                .map_err(|error| io("modprobe", &error).remedy("apt-get install kmod"))?;
            if !output.status.success() && need == Need::Always {
                let cause = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(Trouble::new(format!("the kernel has no {module}: {cause}")));
            }
            for file in insmods(&String::from_utf8_lossy(&output.stdout)) {
                if !files.contains(&file) {
                    files.push(file);
                }
            }
        }
        Ok(files)
    }
}

/// Paths of `insmod PATH OPTIONS` lines; `builtin NAME` needs nothing.
fn insmods(text: &str) -> Vec<PathBuf> {
    let words = text.lines().map(str::split_whitespace);
    words
        .filter_map(|mut words| (words.next()? == "insmod").then(|| words.next())?)
        .map(PathBuf::from)
        .collect()
}

/// A module's bytes, unpacked: Debian 13 has them compressed.
fn unpacked(file: &Path) -> Result<Vec<u8>, Trouble> {
    let unpacker = match file.extension().and_then(|end| end.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        Some(_) | None => return std::fs::read(file).map_err(|error| io(file.display(), &error)),
    };
    let output = Command::new(unpacker).arg("-dc").arg(file).output();
    let output = output.map_err(|error| io(unpacker, &error))?;
    if !output.status.success() {
        return Err(Trouble::new(format!("{unpacker} cannot unpack {}", file.display())));
    }
    Ok(output.stdout)
}

/// The file's name without what says that it is compressed.
fn module_name(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    name.split_once(".ko").map_or_else(|| name.to_string(), |(stem, _)| format!("{stem}.ko"))
}

/// Puts a file of this machine into the archive, where its links lead in a merged /usr.
fn copy(archive: &mut Archive, path: &Path) -> Result<(), Trouble> {
    let data = std::fs::read(path).map_err(|error| io(path.display(), &error))?;
    archive.program(&merged(path), &data);
    Ok(())
}

/// `/lib` and `/lib64` are links into `/usr`.
fn merged(path: &Path) -> String {
    let path = path.to_string_lossy();
    if path.starts_with("/lib") { format!("/usr{path}") } else { path.into_owned() }
}

/// A program without its debug sections, which are most of it, where `strip` is installed.
fn stripped(path: &Path, scratch: &Path) -> Result<Vec<u8>, Trouble> {
    let target = scratch.join("stripped");
    let mut strip = Command::new("strip");
    let status = strip.arg("--strip-debug").arg("-o").arg(&target).arg(path).output();
    let file = if status.is_ok_and(|done| done.status.success()) { target.as_path() } else { path };
    std::fs::read(file).map_err(|error| io(file.display(), &error))
}

/// Puts a program into `/usr/bin`, and its libraries where the linker looks.
fn add_program(
    archive: &mut Archive,
    (name, path): &(String, PathBuf),
    scratch: &Path,
) -> Result<(), Trouble> {
    archive.program(&format!("/usr/bin/{name}"), &stripped(path, scratch)?);
    for library in programs::libraries(path)? {
        copy(archive, &library)?;
    }
    Ok(())
}

/// The whole archive. `scratch` is a folder for files in between.
///
/// # Errors
///
/// A file that cannot be read, a module that the kernel lacks.
pub fn build(
    kernel: &Kernel,
    programs: &[(String, PathBuf)],
    scenarios: &[Scenario],
    scratch: &Path,
) -> Result<Vec<u8>, Trouble> {
    let mut archive = Archive::default();
    for folder in ["/proc", "/sys", "/dev", "/run", "/tmp", "/root", "/sbin", "/usr/sbin"] {
        archive.folder(folder);
    }
    // A merged /usr, as in Debian: the linker and the libraries have one place.
    archive.link("/lib", "usr/lib");
    archive.link("/lib64", "usr/lib64");
    copy(&mut archive, Path::new("/bin/busybox"))?;
    for (path, text) in SCRIPTS {
        archive.program(path, text.as_bytes());
    }
    for scenario in scenarios {
        let path = format!("/rxe-vm/scenarios/{}.sh", scenario.name);
        archive.file(&path, scenario.text.as_bytes());
    }
    for program in programs {
        add_program(&mut archive, program, scratch)?;
    }
    for library in programs::loaded_by_name()? {
        copy(&mut archive, &library)?;
        for needed in programs::libraries(&library)? {
            copy(&mut archive, &needed)?;
        }
    }
    copy(&mut archive, Path::new("/etc/libibverbs.d/rxe.driver"))?;
    archive.file("/etc/hosts", b"127.0.0.1 localhost\n");
    archive.file("/etc/passwd", PASSWD);
    let mut order = String::new();
    for file in kernel.modules()? {
        let name = module_name(&file);
        archive.file(&format!("/modules/{name}"), &unpacked(&file)?);
        order.push_str(&name);
        order.push('\n');
    }
    archive.file("/modules/order", order.as_bytes());
    Ok(archive.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_taken_from_what_modprobe_prints() {
        let text = "insmod /k/lib/modules/6.1/kernel/net/a.ko \nbuiltin b\n\
                    insmod /k/lib/modules/6.12/c.ko.xz option=1\n";
        let files = insmods(text);
        assert_eq!(files.len(), 2);
        let names: Vec<_> = files.iter().map(|file| module_name(file)).collect();
        assert_eq!(names, ["a.ko", "c.ko"]);
    }

    #[test]
    fn libraries_lie_where_the_links_lead() {
        assert_eq!(merged(Path::new("/lib64/ld.so.2")), "/usr/lib64/ld.so.2");
        assert_eq!(merged(Path::new("/usr/lib/x/libc.so.6")), "/usr/lib/x/libc.so.6");
        assert_eq!(merged(Path::new("/bin/busybox")), "/bin/busybox");
    }

    #[test]
    fn a_folder_without_kernel_is_refused_with_a_remedy() {
        let trouble = Kernel::open(Path::new("/nonexistent/kernel")).unwrap_err();
        assert!(trouble.cause.contains("/nonexistent/kernel/lib/modules"), "{trouble}");
        assert!(!trouble.remedy.is_empty());
    }
}
