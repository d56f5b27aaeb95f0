//! Compiles lwIP and `c/end.c` into one object and links it twice, under two names: all of lwIP's
//! state is global, and a link has two ends. Does nothing without the feature `lwip`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What of lwIP is compiled, below its `src`; empty files where an option leaves a part out.
const FOLDERS: [&str; 3] = ["core", "core/ipv4", "netif"];
/// Of `netif`, what is not Ethernet needs more than is here.
const ETHERNET: &str = "ethernet.c";
/// The name that both ends export, and what it becomes.
const EXPORTED: &str = "roceway_calls";
const ENDS: [&str; 2] = ["left", "right"];

fn main() {
    println!("cargo:rerun-if-env-changed=ROCEWAY_LWIP_SOURCE");
    println!("cargo:rerun-if-env-changed=CC");
    println!("cargo:rerun-if-changed=c");
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_LWIP").is_none() {
        return;
    }
    let source = source();
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo names the folder"));
    let objects = compile(&source, &out);
    let one = out.join("one.o");
    let mut join = Command::new(compiler());
    run(join.args(["-r", "-nostdlib", "-o"]).arg(&one).args(&objects));
    let mut archive = Command::new("ar");
    let library = out.join("libroceway_lwip.a");
    let _absent = std::fs::remove_file(&library);
    archive.arg("crs").arg(&library);
    for end in ENDS {
        let object = out.join(format!("{end}.o"));
        let mut copy = Command::new("objcopy");
        copy.arg(format!("--redefine-sym={EXPORTED}={EXPORTED}_{end}"));
        copy.arg(format!("--keep-global-symbol={EXPORTED}_{end}"));
        run(copy.arg(&one).arg(&object));
        archive.arg(&object);
    }
    run(&mut archive);
    println!("cargo:rustc-link-search=native={}", out.display());
    println!("cargo:rustc-link-lib=static=roceway_lwip");
}

/// The folder with lwIP's sources: what the environment says, or where the script puts them.
fn source() -> PathBuf {
    let usual = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/lwip/source");
    let source = std::env::var_os("ROCEWAY_LWIP_SOURCE").unwrap_or_else(|| usual.into());
    let source = PathBuf::from(source);
    assert!(
        source.join("src/core/tcp_in.c").is_file(),
        "no sources of lwIP in {}: run tools/lwip-source, or name another folder in \
         ROCEWAY_LWIP_SOURCE",
        source.display()
    );
    println!("cargo:rerun-if-changed={}", source.display());
    source
}

fn compiler() -> std::ffi::OsString {
    std::env::var_os("CC").unwrap_or_else(|| "cc".into())
}

/// Every object, ours among them.
fn compile(source: &Path, out: &Path) -> Vec<PathBuf> {
    let mut files = vec![PathBuf::from("c/end.c")];
    for folder in FOLDERS {
        let entries = std::fs::read_dir(source.join("src").join(folder)).expect("lwIP's folder");
        files.extend(entries.map(|entry| entry.expect("a file of lwIP").path()).filter(|path| {
            let is_c = path.extension() == Some(OsStr::new("c"));
            is_c && (folder != "netif" || path.file_name() == Some(OsStr::new(ETHERNET)))
        }));
    }
    files.sort();
    let compiled = files.iter().enumerate().map(|(index, file)| {
        let object = out.join(format!("{index}.o"));
        let mut command = Command::new(compiler());
        command.args(["-c", "-O3", "-fPIC", "-fvisibility=hidden", "-Wall", "-I", "c", "-I"]);
        run(command.arg(source.join("src/include")).arg(file).arg("-o").arg(&object));
        object
    });
    compiled.collect()
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(status.success(), "{command:?}: {status}");
}
