//! What people write: device specs, addresses with prefixes, settings in TOML. An error says
//! something, and nothing is opened.

use roceway_rdma_virtio::nic::spec::DeviceSpec;
use roceway_runtime::Prefix;
use roceway_runtime::settings::Settings;

/// The target: the bytes as text.
pub(crate) fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match DeviceSpec::parse(&text) {
        Ok(spec) => assert_eq!(spec.text, text),
        Err(error) => assert!(error.to_string().contains(": "), "{error}"),
    }
    match text.parse::<Prefix>() {
        Ok(prefix) => assert!(prefix.length >= 1),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let mut settings = Settings::new();
    if let Err(error) = settings.apply_toml("a.toml", &text) {
        assert!(!error.to_string().is_empty());
    }
}

/// Right ones.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    [
        "soft:/tmp/a.sock,mtu=1500,tso=on,csum=off",
        "soft:/x,loss=0.01,duplicate=1e-3,reorder=0.5,delay=10us,corrupt=0.1,seed=7",
        "tap:roce0,offloads=off",
        "packet:veth0",
        "rdma:mlx5_0",
        "10.0.0.1/24",
        "fd00::1/64",
        "device = \"soft:/tmp/a\"\naddress = [\"10.0.0.1/24\"]\n[tcp]\nsack = true\n",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect()
}
