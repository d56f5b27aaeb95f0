//! Memory that is mapped once and shared by file descriptor: memfds, their seals, their mappings.
//!
//! Owns the address range: it is unmapped when the [`Mapping`] is dropped, never before and never
//! in part. Invariants: a memfd has one writer, its creator; once sealed its size never changes, so
//! that no access to a mapping of it can fault; a mapping is not inherited by fork.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;

use crate::nic::DeviceError;

/// Size and alignment of a huge page; ranges are aligned to it, so that they may consist of them.
pub const HUGE_PAGE_LEN: usize = 2 << 20;

/// Longest range that [`Mapping`] accepts: 64 GiB.
pub const MAPPING_LEN_MAX: usize = 64 << 30;

const PAGE_LEN: usize = 4096;

const SEALS: libc::c_int =
    libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_FUTURE_WRITE | libc::F_SEAL_SEAL;

/// Which pages are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageWish {
    /// Ordinary pages.
    Ordinary,
    /// Reserved huge pages if there are any, else ordinary ones with a hint to the kernel.
    Huge,
}

/// A system call on memory that failed: the call, its errno, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{call}: {source}{}{remedy}", if .remedy.is_empty() { "" } else { "; " })]
pub struct MappingError {
    /// The call that failed.
    pub call: &'static str,
    /// Its errno.
    #[source]
    pub source: io::Error,
    /// What the user can do; may be empty.
    pub remedy: String,
}

impl MappingError {
    fn last(call: &'static str, remedy: &str) -> MappingError {
        MappingError { call, source: io::Error::last_os_error(), remedy: remedy.to_owned() }
    }

    fn invalid(call: &'static str, remedy: String) -> MappingError {
        MappingError { call, source: io::Error::from_raw_os_error(libc::EINVAL), remedy }
    }

    /// The same error of the named device.
    #[must_use]
    pub fn into_device(self, device: &str) -> DeviceError {
        DeviceError {
            device: device.to_owned(),
            call: self.call,
            source: self.source,
            remedy: self.remedy,
        }
    }
}

/// One memfd of a [`Mapping`].
#[derive(Debug)]
struct Part {
    memfd: OwnedFd,
    offset: usize,
    length: usize,
    huge: bool,
}

/// One memfd to create: its name (seen in `/proc/PID/maps`) and its length.
#[derive(Clone, Copy, Debug)]
pub struct PartSpec<'a> {
    /// Name, for people.
    pub name: &'a CStr,
    /// Bytes; rounded up to whole pages.
    pub length: usize,
}

/// One contiguous range of addresses, behind which one or more memfds lie side by side.
#[derive(Debug)]
pub struct Mapping {
    reserved: NonNull<libc::c_void>,
    reserved_len: usize,
    base: NonNull<u8>,
    length: usize,
    writable: bool,
    parts: Vec<Part>,
}

// SAFETY: the range belongs to this value alone and is not bound to a thread; all access through
// it goes by raw pointers, whose users uphold exclusion.
unsafe impl Send for Mapping {}
// SAFETY: as above; what a shared reference gives are constants and raw pointers.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Creates one memfd and maps it read-write.
    ///
    /// # Errors
    /// If a call fails or the length is 0 or above [`MAPPING_LEN_MAX`].
    pub fn create(name: &CStr, length: usize, wish: PageWish) -> Result<Mapping, MappingError> {
        Mapping::create_side_by_side(&[PartSpec { name, length }], wish)
    }

    /// Creates several memfds and maps them read-write, one behind the other without a gap.
    ///
    /// # Errors
    /// If a call fails or a length is 0 or their sum is above [`MAPPING_LEN_MAX`].
    pub fn create_side_by_side(
        specs: &[PartSpec<'_>],
        wish: PageWish,
    ) -> Result<Mapping, MappingError> {
        let unit = match wish {
            PageWish::Ordinary => PAGE_LEN,
            PageWish::Huge => HUGE_PAGE_LEN,
        };
        let mut total = 0_usize;
        for spec in specs {
            check_length(spec.length)?;
            total += spec.length.next_multiple_of(unit);
        }
        let mut mapping = Mapping::reserve(total, true)?;
        let mut offset = 0;
        for spec in specs {
            let length = spec.length.next_multiple_of(unit);
            let part = mapping.create_part(spec.name, offset, length, wish)?;
            mapping.parts.push(part);
            offset += length;
        }
        mapping.advise(wish)?;
        Ok(mapping)
    }

    /// Maps someone else's memfd read-only, after checking that it is sealed as [`Mapping::seal`]
    /// does and is exactly `length` bytes long.
    ///
    /// # Errors
    /// If a call fails, a seal is missing or the size differs.
    pub fn open_sealed(memfd: OwnedFd, length: usize) -> Result<Mapping, MappingError> {
        check_length(length)?;
        // SAFETY: plain system call on a descriptor that we own.
        let seals = unsafe { libc::fcntl(memfd.as_raw_fd(), libc::F_GET_SEALS) };
        if seals < 0 {
            return Err(MappingError::last("fcntl(F_GET_SEALS)", "the peer must pass a memfd"));
        }
        if seals & SEALS != SEALS {
            let missing = SEALS & !seals;
            return Err(MappingError::invalid(
                "fcntl(F_GET_SEALS)",
                format!("the peer's memory lacks seals {missing:#x}: it is not one of ours"),
            ));
        }
        let found = file_length(memfd.as_raw_fd())?;
        if u64::try_from(length) != Ok(found) {
            return Err(MappingError::invalid(
                "fstat",
                format!("the peer's memory is {found} bytes long, but it announced {length}"),
            ));
        }
        let mut mapping = Mapping::reserve(length.next_multiple_of(PAGE_LEN), false)?;
        map_fixed(mapping.base, length, memfd.as_raw_fd(), libc::PROT_READ)?;
        mapping.parts.push(Part { memfd, offset: 0, length, huge: false });
        mapping.advise(PageWish::Ordinary)?;
        Ok(mapping)
    }

    /// Maps a memfd of the application's own read-write, all of it, and seals it as
    /// [`Mapping::seal`] does: from then on nobody maps it for writing, writes to the file or
    /// changes its length. Mappings that exist already stay.
    ///
    /// # Errors
    /// If it is no memfd that can be sealed and written, it is empty, or a call fails.
    pub fn adopt(memfd: OwnedFd) -> Result<Mapping, MappingError> {
        let sealed = "create it with memfd_create(MFD_ALLOW_SEALING), without seals of its own";
        // SAFETY: plain system call on a descriptor that we own.
        if unsafe { libc::fcntl(memfd.as_raw_fd(), libc::F_GET_SEALS) } < 0 {
            return Err(MappingError::last("fcntl(F_GET_SEALS)", sealed));
        }
        let length = usize::try_from(file_length(memfd.as_raw_fd())?).unwrap_or(usize::MAX);
        check_length(length)?;
        let mut mapping = Mapping::reserve(length.next_multiple_of(PAGE_LEN), true)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        map_fixed(mapping.base, length, memfd.as_raw_fd(), protection)?;
        mapping.length = length;
        mapping.parts.push(Part { memfd, offset: 0, length, huge: false });
        mapping.advise(PageWish::Ordinary)?;
        mapping.seal().map_err(|error| MappingError { remedy: sealed.to_owned(), ..error })?;
        // Until it was sealed it may have been cut.
        let found = file_length(mapping.parts[0].memfd.as_raw_fd())?;
        if u64::try_from(length) != Ok(found) {
            let remedy = "its length changed while it was mapped".to_owned();
            return Err(MappingError::invalid("fstat", remedy));
        }
        Ok(mapping)
    }

    /// Seals every memfd: no shrinking, no growing, no writable mapping besides the existing one.
    ///
    /// # Errors
    /// If the kernel refuses (before Linux 5.1).
    pub fn seal(&self) -> Result<(), MappingError> {
        for part in &self.parts {
            // SAFETY: plain system call on a descriptor that we own.
            let result = unsafe { libc::fcntl(part.memfd.as_raw_fd(), libc::F_ADD_SEALS, SEALS) };
            if result < 0 {
                return Err(MappingError::last("fcntl(F_ADD_SEALS)", "needs Linux 5.1 or later"));
            }
        }
        Ok(())
    }

    /// First byte.
    #[must_use]
    pub fn as_ptr(&self) -> *const u8 {
        self.base.as_ptr()
    }

    /// First byte, for writing.
    ///
    /// # Panics
    /// If the mapping is someone else's, which is read-only.
    #[must_use]
    pub fn as_mut_ptr(&self) -> *mut u8 {
        assert!(self.writable, "a peer's memory is mapped read-only");
        self.base.as_ptr()
    }

    /// First byte, as an address.
    #[must_use]
    pub fn addr(&self) -> u64 {
        self.base.as_ptr().expose_provenance() as u64
    }

    /// Length in bytes, all memfds together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether the length is 0; never so.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The descriptor of the memfd with this number, in order of addresses.
    ///
    /// # Panics
    /// If there are fewer.
    #[must_use]
    pub fn memfd(&self, part: usize) -> BorrowedFd<'_> {
        use std::os::fd::AsFd;
        self.parts[part].memfd.as_fd()
    }

    /// Offset and length of the memfd with this number within the range.
    ///
    /// # Panics
    /// If there are fewer.
    #[must_use]
    pub fn part_range(&self, part: usize) -> (usize, usize) {
        (self.parts[part].offset, self.parts[part].length)
    }

    /// Whether all of it lies in reserved huge pages.
    #[must_use]
    pub fn has_huge_pages(&self) -> bool {
        self.parts.iter().all(|part| part.huge)
    }

    /// Reserves a range of addresses that nothing else will be mapped into.
    fn reserve(length: usize, writable: bool) -> Result<Mapping, MappingError> {
        check_length(length)?;
        let reserved_len = length + HUGE_PAGE_LEN;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let addr = unsafe {
            libc::mmap(std::ptr::null_mut(), reserved_len, libc::PROT_NONE, flags, -1, 0)
        };
        let reserved = match NonNull::new(addr) {
            Some(found) if addr != libc::MAP_FAILED => found,
            _ => return Err(MappingError::last("mmap", "raise RLIMIT_AS (ulimit -v)")),
        };
        let skip = reserved.cast::<u8>().as_ptr().align_offset(HUGE_PAGE_LEN);
        // SAFETY: `skip` is less than HUGE_PAGE_LEN, by which the reservation is longer.
        let base = unsafe { reserved.cast::<u8>().byte_add(skip) };
        Ok(Mapping { reserved, reserved_len, base, length, writable, parts: Vec::new() })
    }

    fn create_part(
        &self,
        name: &CStr,
        offset: usize,
        length: usize,
        wish: PageWish,
    ) -> Result<Part, MappingError> {
        // SAFETY: `offset + length` is at most `self.length`: the caller summed the lengths.
        let base = unsafe { self.base.byte_add(offset) };
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        if wish == PageWish::Huge
            && let Ok(memfd) = create_memfd(name, length, libc::MFD_HUGETLB)
            && huge_pages_are_there(&memfd, length)
            && map_fixed(base, length, memfd.as_raw_fd(), protection).is_ok()
        {
            return Ok(Part { memfd, offset, length, huge: true });
        }
        let memfd = create_memfd(name, length, 0)?;
        map_fixed(base, length, memfd.as_raw_fd(), protection)?;
        Ok(Part { memfd, offset, length, huge: false })
    }

    fn advise(&self, wish: PageWish) -> Result<(), MappingError> {
        let start = self.base.as_ptr().cast::<libc::c_void>();
        // SAFETY: advice on a range that we own.
        if unsafe { libc::madvise(start, self.length, libc::MADV_DONTFORK) } < 0 {
            return Err(MappingError::last("madvise(MADV_DONTFORK)", ""));
        }
        if wish == PageWish::Huge && !self.has_huge_pages() {
            // A hint only: kernels without transparent huge pages refuse it, and nothing is lost.
            // SAFETY: advice on a range that we own.
            let _ = unsafe { libc::madvise(start, self.length, libc::MADV_HUGEPAGE) };
        }
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was reserved by us and everything in it was mapped by us; whoever was
        // given an address in it promised not to use it after our drop.
        let result = unsafe { libc::munmap(self.reserved.as_ptr(), self.reserved_len) };
        debug_assert_eq!(result, 0);
    }
}

fn check_length(length: usize) -> Result<(), MappingError> {
    if length == 0 || length > MAPPING_LEN_MAX {
        return Err(MappingError::invalid(
            "mmap",
            format!("{length} bytes asked for; choose 1 to {MAPPING_LEN_MAX}"),
        ));
    }
    Ok(())
}

fn create_memfd(name: &CStr, length: usize, more: libc::c_uint) -> Result<OwnedFd, MappingError> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | more;
    // SAFETY: `name` is a string that ends in NUL and outlives the call.
    let fd: RawFd = unsafe { libc::memfd_create(name.as_ptr(), flags) };
    if fd < 0 {
        return Err(MappingError::last("memfd_create", "raise RLIMIT_NOFILE (ulimit -n)"));
    }
    // SAFETY: the call just returned this descriptor; nobody else has it.
    let memfd = unsafe { OwnedFd::from_raw_fd(fd) };
    let length = libc::off_t::try_from(length)
        .map_err(|_| MappingError::invalid("ftruncate", "choose less memory".to_owned()))?;
    // SAFETY: plain system call on a descriptor that we own.
    if unsafe { libc::ftruncate(fd, length) } < 0 {
        return Err(MappingError::last("ftruncate", "choose less memory"));
    }
    Ok(memfd)
}

fn file_length(fd: RawFd) -> Result<u64, MappingError> {
    // SAFETY: all-zero bytes are a valid `stat`, which is plain integers.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is valid for writing and outlives the call.
    if unsafe { libc::fstat(fd, &raw mut stat) } < 0 {
        return Err(MappingError::last("fstat", ""));
    }
    u64::try_from(stat.st_size)
        .map_err(|_| MappingError::invalid("fstat", "a negative size".to_owned()))
}

/// Whether the pool has pages enough: a shared mapping reserves them for the memfd's life. Tried
/// elsewhere first, since a fixed mapping that fails may leave a hole in the reservation.
fn huge_pages_are_there(memfd: &OwnedFd, length: usize) -> bool {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let fd = memfd.as_raw_fd();
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
    let addr =
        unsafe { libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, fd, 0) };
    if addr == libc::MAP_FAILED {
        return false;
    }
    // SAFETY: the range that was just mapped, unused.
    unsafe { libc::munmap(addr, length) == 0 }
}

/// Maps all of `fd` at `base`, populated, so that the data path takes no page fault.
fn map_fixed(
    base: NonNull<u8>,
    length: usize,
    fd: RawFd,
    protection: libc::c_int,
) -> Result<(), MappingError> {
    let flags = libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_POPULATE;
    // SAFETY: replaces a part of a reservation that we own and that nobody uses yet.
    let addr = unsafe { libc::mmap(base.as_ptr().cast(), length, protection, flags, fd, 0) };
    if addr == libc::MAP_FAILED {
        return Err(MappingError::last("mmap", "choose less memory, or ordinary pages"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_lie_side_by_side_and_are_writable() {
        let specs = [
            PartSpec { name: c"roceway-test-a", length: 5000 },
            PartSpec { name: c"roceway-test-b", length: 4096 },
        ];
        for wish in [PageWish::Ordinary, PageWish::Huge] {
            let mapping = Mapping::create_side_by_side(&specs, wish).unwrap();
            let (second, _) = mapping.part_range(1);
            assert_eq!(mapping.part_range(0).1, second);
            mapping.seal().unwrap();
            // SAFETY: the last byte of a mapping of which this test is the only user.
            unsafe { mapping.as_mut_ptr().wrapping_add(mapping.len() - 1).write(7) };
            // SAFETY: as above.
            assert_eq!(unsafe { mapping.as_ptr().wrapping_add(mapping.len() - 1).read() }, 7);
        }
    }

    #[test]
    fn a_sealed_memfd_opens_read_only_and_shows_the_same_bytes() {
        let ours = Mapping::create(c"roceway-test", 8192, PageWish::Ordinary).unwrap();
        let unsealed = ours.memfd(0).try_clone_to_owned().unwrap();
        let error = Mapping::open_sealed(unsealed, 8192).unwrap_err();
        assert!(error.to_string().contains("lacks seals"), "{error}");

        ours.seal().unwrap();
        let wrong = ours.memfd(0).try_clone_to_owned().unwrap();
        assert!(Mapping::open_sealed(wrong, 4096).unwrap_err().to_string().contains("8192"));

        let theirs =
            Mapping::open_sealed(ours.memfd(0).try_clone_to_owned().unwrap(), 8192).unwrap();
        // SAFETY: inside the mapping, whose only users are in this function.
        unsafe { ours.as_mut_ptr().wrapping_add(5000).write(0xA5) };
        // SAFETY: as above.
        assert_eq!(unsafe { theirs.as_ptr().wrapping_add(5000).read_volatile() }, 0xA5);
        // A second writable mapping is refused by the seal.
        assert!(
            map_fixed(theirs.base, 8192, theirs.memfd(0).as_raw_fd(), libc::PROT_WRITE).is_err()
        );
    }

    #[test]
    fn absurd_lengths_are_refused() {
        for length in [0, usize::MAX, MAPPING_LEN_MAX + 1] {
            let error = Mapping::create(c"roceway-test", length, PageWish::Ordinary).unwrap_err();
            assert!(error.to_string().contains("bytes asked for"), "{error}");
        }
    }

    #[test]
    fn an_ordinary_file_is_not_mapped() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert!(Mapping::open_sealed(file.into(), 4096).is_err());
    }
}
