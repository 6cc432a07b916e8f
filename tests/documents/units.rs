//! Units: the guide's are such, as those of `imux init` are, and say what these say.

use std::fs;
use std::process::Command;

use crate::markdown::{GUIDE, blocks};
use crate::support::{process, skipped};

const SERVER: &[&str] = &["server"];
const CLIENT: &[&str] = &["client", "--dial", "server.example:443", "--pin", PIN];
const PIN: &str = "SHA256:uNiVztksCsDhcc0u9e8BgrJXVGDmgLVcJ1GyLlBOZnk";

/// The unit that `imux init` would write.
fn of_init(role: &[&str]) -> String {
    let home = tempfile::tempdir().unwrap();
    let args = [&["init"], role, &["--yes", "--unit", "--print"]].concat();
    let (code, shown, told) = process::run(home.path(), &args);
    assert_eq!(code, 0, "{told}");
    let (_, unit) = shown.split_once("[Unit]\n").unwrap();
    format!("[Unit]\n{unit}")
}

/// The guide's: of a server and of a client.
fn of_guide() -> [String; 2] {
    let units = blocks(GUIDE).into_iter().filter(|block| block.language == "ini");
    units.map(|block| block.text).collect::<Vec<_>>().try_into().unwrap()
}

#[test]
fn the_guides_units_say_what_those_of_init_say() {
    // But for where things are, and who it is for.
    let elsewhere = ["Environment=", "Exec", "Bind", "ProtectHome=", "WantedBy="];
    for (unit, role) in of_guide().iter().zip([SERVER, CLIENT]) {
        let said = of_init(role);
        for line in said.lines().filter(|line| !elsewhere.iter().any(|it| line.starts_with(it))) {
            assert!(
                unit.lines().any(|it| it == line),
                "there is no {line} in the unit of {role:?}"
            );
        }
    }
}

#[test]
fn units_are_units() {
    let verifies = Command::new("systemd-analyze").arg("--version").output();
    let missing = verifies.is_err().then(|| "systemd-analyze is not installed".to_owned());
    if skipped::mark(missing.as_deref()) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let all = of_guide().into_iter().chain([of_init(SERVER), of_init(CLIENT)]);
    for (number, text) in all.enumerate() {
        let name = format!("imux-{number}.service");
        let file = folder.path().join(&name);
        // It looks whether the program is there.
        let text = text.replace("/usr/local/bin/imux", env!("CARGO_BIN_EXE_imux"));
        fs::write(&file, text).unwrap();
        let output = Command::new("systemd-analyze").arg("verify").arg(&file).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        let about: Vec<_> = told.lines().filter(|line| line.contains(&name)).collect();
        assert!(about.is_empty(), "{about:#?}");
    }
}
