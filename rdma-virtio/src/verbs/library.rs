//! The table of functions of libibverbs.so.1 and librdmacm.so.1, found with dlopen(3).
//!
//! Owns the two libraries, which are opened once and never closed. Never makes an object. The
//! signatures are the headers' (`sys::fn_*`); a function that older libraries lack is optional, and
//! whoever needs it says what lacks.
//!
//! `ROCEWAY_LIBIBVERBS` and `ROCEWAY_LIBRDMACM` name other files to open, for tests.

use super::sys;
use crate::nic::DeviceError;
use std::ffi::{CStr, CString, c_char, c_void};
use std::io;
use std::sync::OnceLock;

/// The library of verbs: its name, what overrides it, the version of its symbols that is meant
/// where there are several, and what helps if the file in its place cannot be opened.
const IBVERBS: Origin = Origin {
    file: "libibverbs.so.1",
    variable: "ROCEWAY_LIBIBVERBS",
    version: c"IBVERBS_1.1",
    replaced: "unset ROCEWAY_LIBIBVERBS, or have it name a library that this user may read",
};
/// The library of the connection manager.
const RDMACM: Origin = Origin {
    file: "librdmacm.so.1",
    variable: "ROCEWAY_LIBRDMACM",
    version: c"RDMACM_1.0",
    replaced: "unset ROCEWAY_LIBRDMACM, or have it name a library that this user may read",
};

struct Origin {
    file: &'static str,
    variable: &'static str,
    version: &'static CStr,
    replaced: &'static str,
}

/// An opened library.
struct Opened {
    handle: *mut c_void,
    name: String,
    version: &'static CStr,
}

/// Why a library cannot be used, kept since it is asked for again and again.
#[derive(Clone, Debug)]
struct Refusal {
    what: String,
    remedy: &'static str,
}

impl Refusal {
    fn error(&self) -> DeviceError {
        DeviceError {
            device: "no RDMA".to_owned(),
            call: "",
            source: io::Error::new(io::ErrorKind::NotFound, self.what.clone()),
            remedy: self.remedy.to_owned(),
        }
    }
}

/// The pointer inside of the optional pointer that the headers' types are.
pub(super) trait Nullable {
    type Pointer: Copy;
    fn from_symbol(symbol: *mut c_void) -> Self;
    fn present(self) -> Option<Self::Pointer>;
}

impl<F: Copy> Nullable for Option<F> {
    type Pointer = F;
    fn from_symbol(symbol: *mut c_void) -> Self {
        const { assert!(size_of::<Option<F>>() == size_of::<*mut c_void>()) };
        // SAFETY: an optional function pointer is as large as a pointer and null for None; that the
        // symbol has the signature of its header is the library's promise (its soname's version).
        unsafe { std::mem::transmute_copy::<*mut c_void, Option<F>>(&symbol) }
    }
    fn present(self) -> Option<F> {
        self
    }
}

type Function<T> = <T as Nullable>::Pointer;

/// Declares a table of functions and how it is filled.
macro_rules! table {
    ($(#[$doc:meta])* $table:ident { $($required:ident: $required_type:ident,)* }
     optional { $($optional:ident: $optional_type:ident,)* }) => {
        $(#[$doc])*
        pub(super) struct $table {
            /// The file, for messages.
            pub(super) name: String,
            $(pub(super) $required: Function<sys::$required_type>,)*
            $(pub(super) $optional: sys::$optional_type,)*
        }

        impl $table {
            fn fill(opened: Opened) -> Result<Self, Refusal> {
                Ok($table {
                    $($required: opened.required::<sys::$required_type>(stringify!($required))?,)*
                    $($optional: opened.optional::<sys::$optional_type>(stringify!($optional)),)*
                    name: opened.name,
                })
            }
        }
    };
}

table! {
    /// The functions of libibverbs.
    VerbsTable {
        ibv_get_device_list: fn_ibv_get_device_list,
        ibv_free_device_list: fn_ibv_free_device_list,
        ibv_get_device_name: fn_ibv_get_device_name,
        ibv_get_device_guid: fn_ibv_get_device_guid,
        ibv_open_device: fn_ibv_open_device,
        ibv_close_device: fn_ibv_close_device,
        ibv_get_async_event: fn_ibv_get_async_event,
        ibv_ack_async_event: fn_ibv_ack_async_event,
        ibv_query_device: fn_ibv_query_device,
        ibv_query_port: fn_ibv_query_port,
        ibv_query_pkey: fn_ibv_query_pkey,
        ibv_alloc_pd: fn_ibv_alloc_pd,
        ibv_dealloc_pd: fn_ibv_dealloc_pd,
        ibv_reg_mr: fn_ibv_reg_mr,
        ibv_dereg_mr: fn_ibv_dereg_mr,
        ibv_create_comp_channel: fn_ibv_create_comp_channel,
        ibv_destroy_comp_channel: fn_ibv_destroy_comp_channel,
        ibv_create_cq: fn_ibv_create_cq,
        ibv_destroy_cq: fn_ibv_destroy_cq,
        ibv_get_cq_event: fn_ibv_get_cq_event,
        ibv_ack_cq_events: fn_ibv_ack_cq_events,
        ibv_create_srq: fn_ibv_create_srq,
        ibv_modify_srq: fn_ibv_modify_srq,
        ibv_query_srq: fn_ibv_query_srq,
        ibv_destroy_srq: fn_ibv_destroy_srq,
        ibv_create_qp: fn_ibv_create_qp,
        ibv_modify_qp: fn_ibv_modify_qp,
        ibv_query_qp: fn_ibv_query_qp,
        ibv_destroy_qp: fn_ibv_destroy_qp,
        ibv_create_ah: fn_ibv_create_ah,
        ibv_destroy_ah: fn_ibv_destroy_ah,
        ibv_attach_mcast: fn_ibv_attach_mcast,
        ibv_detach_mcast: fn_ibv_detach_mcast,
    }
    optional {
        _ibv_query_gid_table: fn__ibv_query_gid_table,
        ibv_reg_mr_iova2: fn_ibv_reg_mr_iova2,
        ibv_qp_to_qp_ex: fn_ibv_qp_to_qp_ex,
    }
}

table! {
    /// The functions of librdmacm.
    ConnectTable {
        rdma_create_event_channel: fn_rdma_create_event_channel,
        rdma_destroy_event_channel: fn_rdma_destroy_event_channel,
        rdma_create_id: fn_rdma_create_id,
        rdma_destroy_id: fn_rdma_destroy_id,
        rdma_bind_addr: fn_rdma_bind_addr,
        rdma_resolve_addr: fn_rdma_resolve_addr,
        rdma_resolve_route: fn_rdma_resolve_route,
        rdma_connect: fn_rdma_connect,
        rdma_establish: fn_rdma_establish,
        rdma_listen: fn_rdma_listen,
        rdma_accept: fn_rdma_accept,
        rdma_reject: fn_rdma_reject,
        rdma_disconnect: fn_rdma_disconnect,
        rdma_get_cm_event: fn_rdma_get_cm_event,
        rdma_ack_cm_event: fn_rdma_ack_cm_event,
        rdma_init_qp_attr: fn_rdma_init_qp_attr,
        rdma_set_option: fn_rdma_set_option,
    }
    optional {}
}

/// libibverbs, opened.
pub struct Library {
    pub(super) table: VerbsTable,
}

impl Library {
    /// The file that was opened.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.table.name
    }
}

/// librdmacm, opened.
pub struct ConnectLibrary {
    pub(super) table: ConnectTable,
}

impl ConnectLibrary {
    /// The file that was opened.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.table.name
    }
}

/// libibverbs; the first call opens it.
///
/// # Errors
/// If it is not there or lacks a function; what to install is in the text.
pub fn library() -> Result<&'static Library, DeviceError> {
    static LIBRARY: OnceLock<Result<Library, Refusal>> = OnceLock::new();
    let open = || {
        let table = VerbsTable::fill(open(&IBVERBS, variable(&IBVERBS))?)?;
        Ok(Library { table })
    };
    LIBRARY.get_or_init(open).as_ref().map_err(Refusal::error)
}

/// librdmacm; the first call opens it.
///
/// # Errors
/// If it is not there or lacks a function. Also if another libibverbs is asked for but not another
/// librdmacm: the system's would bring the system's libibverbs, whose objects are not ours.
pub fn connect_library() -> Result<&'static ConnectLibrary, DeviceError> {
    static LIBRARY: OnceLock<Result<ConnectLibrary, Refusal>> = OnceLock::new();
    let open = || {
        if variable(&IBVERBS).is_some() && variable(&RDMACM).is_none() {
            return Err(Refusal {
                what: format!("{} belongs to the system's {}", RDMACM.file, IBVERBS.file),
                remedy: "unset ROCEWAY_LIBIBVERBS or set ROCEWAY_LIBRDMACM too",
            });
        }
        let table = ConnectTable::fill(open(&RDMACM, variable(&RDMACM))?)?;
        Ok(ConnectLibrary { table })
    };
    LIBRARY.get_or_init(open).as_ref().map_err(Refusal::error)
}

fn variable(origin: &Origin) -> Option<String> {
    std::env::var(origin.variable).ok().filter(|value| !value.is_empty())
}

/// Opens a library by its own name, or the file that replaces it.
fn open(origin: &Origin, replacement: Option<String>) -> Result<Opened, Refusal> {
    // No package brings what the variable names.
    let remedy = if replacement.is_some() { origin.replaced } else { "install rdma-core" };
    let name = replacement.unwrap_or_else(|| origin.file.to_owned());
    let refuse = |what| Refusal { what, remedy };
    let path = CString::new(name.as_str())
        .map_err(|_| refuse(format!("{} has a zero byte in it", origin.variable)))?;
    // SAFETY: a C string. What runs when it is loaded is trusted as any library of the system is.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if handle.is_null() {
        return Err(refuse(explain(&name, &last_dl_error())));
    }
    Ok(Opened { handle, name, version: origin.version })
}

/// Says in few words what dlopen says in its own.
fn explain(name: &str, said: &str) -> String {
    // "NAME: cannot open shared object file: No such file or directory"; a library that it needs
    // in turn is named first instead.
    let own = said.strip_prefix(name).is_some_and(|rest| rest.starts_with(": cannot open shared"));
    match (own, said.is_empty()) {
        (true, _) if said.ends_with("No such file or directory") => format!("{name} not found"),
        (_, true) => format!("{name} cannot be loaded"),
        (_, false) => format!("{name} cannot be loaded: {said}"),
    }
}

fn last_dl_error() -> String {
    // SAFETY: no arguments; the text is this thread's until its next dl call.
    let text: *const c_char = unsafe { libc::dlerror() };
    if text.is_null() {
        return String::new();
    }
    // SAFETY: a C string of the C library, not null.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

impl Opened {
    /// A symbol, null if there is none: in the version that is meant where there are several, else
    /// in its only or default one.
    fn symbol(&self, name: &str) -> *mut c_void {
        let Ok(name) = CString::new(name) else { return std::ptr::null_mut() };
        #[cfg(target_env = "gnu")]
        {
            // SAFETY: an open library and two C strings.
            let versioned =
                unsafe { libc::dlvsym(self.handle, name.as_ptr(), self.version.as_ptr()) };
            if !versioned.is_null() {
                return versioned;
            }
        }
        // SAFETY: an open library and a C string.
        unsafe { libc::dlsym(self.handle, name.as_ptr()) }
    }

    fn required<T: Nullable>(&self, name: &str) -> Result<T::Pointer, Refusal> {
        T::from_symbol(self.symbol(name)).present().ok_or_else(|| Refusal {
            what: format!("{} has no function {name}", self.name),
            remedy: "install a later rdma-core",
        })
    }

    fn optional<T: Nullable>(&self, name: &str) -> T {
        T::from_symbol(self.symbol(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const C_LIBRARY: Origin = Origin {
        file: "libc.so.6",
        variable: "ROCEWAY_LIBC",
        version: c"GLIBC_2.2.5",
        replaced: "unset it",
    };

    fn opened() -> Opened {
        open(&C_LIBRARY, None).map_err(|refusal| refusal.what).unwrap()
    }

    #[test]
    fn a_missing_library_is_named_with_its_remedy() {
        let missing = Origin { file: "libibverbs-missing.so.1", ..IBVERBS };
        let refusal = open(&missing, None).map(|_| ()).unwrap_err();
        let text = refusal.error().to_string();
        assert_eq!(text, "no RDMA: libibverbs-missing.so.1 not found; install rdma-core");
        let refusal = open(&IBVERBS, Some("/none.so".to_owned())).map(|_| ()).unwrap_err();
        let text = refusal.error().to_string();
        assert_eq!(text, format!("no RDMA: /none.so not found; {}", IBVERBS.replaced));
    }

    #[test]
    fn what_dlopen_says_is_shortened_only_if_it_is_about_the_library_itself() {
        let none = "cannot open shared object file: No such file or directory";
        for (said, expected) in [
            (format!("a.so: {none}"), "a.so not found".to_owned()),
            (format!("b.so: {none}"), format!("a.so cannot be loaded: b.so: {none}")),
            (
                "a.so: file too short".to_owned(),
                "a.so cannot be loaded: a.so: file too short".into(),
            ),
            (String::new(), "a.so cannot be loaded".to_owned()),
        ] {
            assert_eq!(explain("a.so", &said), expected);
        }
    }

    #[test]
    fn functions_are_found_with_and_without_a_version() {
        let library = opened();
        let with_version = library.symbol("getpid");
        let without = Opened { version: c"NOT_A_VERSION", ..opened() }.symbol("getpid");
        assert!(!with_version.is_null());
        assert_eq!(with_version, without);
        type GetPid = Option<unsafe extern "C" fn() -> i32>;
        let getpid = library.required::<GetPid>("getpid").map_err(|refusal| refusal.what).unwrap();
        // SAFETY: its signature; it has no conditions.
        let pid = unsafe { getpid() };
        assert_eq!(u32::try_from(pid), Ok(std::process::id()));
    }

    #[test]
    fn a_function_that_lacks_is_named_and_an_optional_one_is_none() {
        let library = opened();
        type Any = Option<unsafe extern "C" fn()>;
        assert!(library.optional::<Any>("ibv_no_such_function").is_none());
        let refusal = library.required::<Any>("ibv_no_such_function").unwrap_err();
        let text = refusal.error().to_string();
        let lacks = "no RDMA: libc.so.6 has no function ibv_no_such_function";
        assert_eq!(text, format!("{lacks}; install a later rdma-core"));
    }
}
