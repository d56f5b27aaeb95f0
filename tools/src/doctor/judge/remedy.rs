//! Commands that mend things, as the machine's distribution has them.

use super::super::facts::{Distribution, Facts, Module};

/// The command that installs packages, of which each distribution has its own names.
fn install(facts: &Facts, debian: &str, red_hat: &str, suse: &str) -> String {
    match facts.host.distribution {
        Distribution::Debian => format!("sudo apt install {debian}"),
        Distribution::RedHat => format!("sudo dnf install {red_hat}"),
        Distribution::Suse => format!("sudo zypper install {suse}"),
        Distribution::Other => format!("install the packages that hold {debian}"),
    }
}

/// Installs the RDMA libraries with their drivers.
pub(super) fn install_rdma_core(facts: &Facts) -> String {
    install(
        facts,
        "rdma-core ibverbs-providers libibverbs1 librdmacm1",
        "rdma-core libibverbs librdmacm",
        "rdma-core libibverbs1 librdmacm1",
    )
}

/// A module's facts.
pub(super) fn module<'a>(facts: &'a Facts, name: &str) -> Option<&'a Module> {
    facts.access.modules.iter().find(|module| module.name == name)
}

/// Whether the running kernel surely lacks a module.
pub(super) fn is_lacking(facts: &Facts, name: &str) -> bool {
    module(facts, name).is_some_and(|module| !module.loaded && module.available == Some(false))
}

/// Gets a kernel package that has the module, or loads the module.
pub(super) fn load(facts: &Facts, name: &str) -> String {
    if !is_lacking(facts, name) {
        return format!("sudo modprobe {name}");
    }
    let kernel = facts.host.kernel.as_deref().unwrap_or("unknown");
    match facts.host.distribution {
        Distribution::Debian if kernel.ends_with("-generic") => {
            format!("sudo apt install linux-modules-extra-{kernel} && sudo modprobe {name}")
        }
        Distribution::Debian => "sudo apt install linux-image-amd64 && sudo reboot".to_owned(),
        Distribution::RedHat => {
            format!("sudo dnf install kernel-modules-extra-{kernel} && sudo modprobe {name}")
        }
        Distribution::Suse | Distribution::Other => {
            format!("boot a kernel that has {name}; this one, {kernel}, has not")
        }
    }
}

/// Adds an argument to the kernel's command line.
pub(super) fn kernel_argument(facts: &Facts, arguments: &str) -> String {
    match facts.host.distribution {
        Distribution::RedHat => {
            format!("sudo grubby --update-kernel=ALL --args='{arguments}' && sudo reboot")
        }
        Distribution::Debian => format!(
            "sudo sed -i 's/^GRUB_CMDLINE_LINUX=\"/&{arguments} /' /etc/default/grub && \
             sudo update-grub && sudo reboot"
        ),
        Distribution::Suse | Distribution::Other => {
            format!("boot with these on the kernel's command line: {arguments}")
        }
    }
}

/// Gives this program a capability.
pub(super) fn capability(name: &str) -> String {
    roceway_runtime::rdma_virtio::nic::rtnl::setcap_remedy(name)
}

/// Starts a container that may use RDMA.
pub(super) const CONTAINER: &str = "docker run --device=/dev/infiniband --network=host \
     --cap-add=NET_RAW --ulimit memlock=-1 IMAGE";
