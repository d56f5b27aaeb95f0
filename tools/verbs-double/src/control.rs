//! Control lines: how a test lets things happen, in its own process by `verbs_double_control` and
//! in another by the socket of `control=PATH`. The README lists them.

use crate::abi::consts::*;
use crate::config::parse_gid;
use crate::events::Element;
use crate::faults::{Direction, ForcedStatus};
use crate::strings;
use crate::world::World;

fn number<T: std::str::FromStr>(word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("`{word}`: not a number that fits"))
}

impl World {
    fn device_named(&self, name: &str) -> Result<usize, String> {
        let found = self.devices.iter().position(|device| device.config.name == name);
        found.ok_or_else(|| format!("`{name}`: no such device"))
    }

    /// Queue pairs of a device, by number or all.
    fn named_qps(&self, device: usize, word: &str) -> Result<Vec<u32>, String> {
        let one = if word == "all" { None } else { Some(number::<u32>(word)?) };
        Ok(self
            .qps
            .handles(|qp| qp.device == device && one.is_none_or(|wanted| wanted == qp.number)))
    }

    /// Executes a control line.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it; nothing happened then.
    pub(crate) fn control(&mut self, line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["fail", call, errno] => self.faults.fail_call(call, number(errno)?, 1),
            ["fail", call, errno, count] => {
                self.faults.fail_call(call, number(errno)?, number(count)?);
            }
            ["counters", path] => self.write_counters(path)?,
            [verb, device, rest @ ..] => {
                let device = self.device_named(device)?;
                self.control_device(verb, device, rest)
                    .map_err(|error| format!("`{line}`: {error}"))?;
            }
            _ => return Err(format!("`{line}`: not a control line")),
        }
        self.run();
        Ok(())
    }

    /// Writes all counters into a file, which is there only once it is whole.
    fn write_counters(&self, path: &str) -> Result<(), String> {
        let begun = format!("{path}.begun");
        std::fs::write(&begun, self.counters.lines())
            .and_then(|()| std::fs::rename(&begun, path))
            .map_err(|error| format!("`{path}`: {error}"))
    }

    fn control_device(&mut self, verb: &str, device: usize, rest: &[&str]) -> Result<(), String> {
        match (verb, rest) {
            ("port", ["down"]) => self.set_port(device, false),
            ("port", ["up"]) => self.set_port(device, true),
            ("fatal", []) => self.kill(device),
            ("gid", [index, gid]) => {
                let place = self.devices[device].gids.get_mut(number::<usize>(index)?);
                *place.ok_or("no such index")? = parse_gid(gid)?;
                self.device_event(device, EVENT_GID_CHANGE);
            }
            ("event", [name]) => {
                let kind = strings::value_of(&strings::EVENT, name).ok_or("no such event")?;
                self.device_event(device, kind);
            }
            ("qp", [which, "fatal"]) => {
                for handle in self.named_qps(device, which)? {
                    self.fatal_qp(handle);
                }
            }
            ("qp", [which, name]) => {
                let kind = strings::value_of(&strings::EVENT, name).ok_or("no such event")?;
                for handle in self.named_qps(device, which)? {
                    let context = self.qps.get(handle).map_or(u32::MAX, |qp| qp.context);
                    self.object_event(context, kind, Element::Qp(handle));
                }
            }
            ("cq", ["err"]) => {
                for handle in self.cqs.handles(|cq| cq.device == device) {
                    self.fail_cq(handle);
                }
            }
            ("srq", [what]) => self.fail_srqs(device, what)?,
            ("wc", [which, status, direction, rest @ ..]) => {
                self.force(device, (which, status, direction), rest)?;
            }
            ("lose", ["next", count]) => self.devices[device].loss.next = number(count)?,
            ("lose", [parts]) => {
                self.devices[device].loss.parts_per_million = number(parts)?;
            }
            ("corrupt", [count]) => self.devices[device].loss.corrupt = number(count)?,
            ("stall", [word]) => {
                self.devices[device].loss.stalled = *word == "on";
                self.ready.extend(self.qps.handles(|qp| qp.device == device));
            }
            _ => return Err("not a control line".to_string()),
        }
        Ok(())
    }

    fn set_port(&mut self, device: usize, up: bool) {
        if std::mem::replace(&mut self.devices[device].up, up) != up {
            let kind = if up { EVENT_PORT_ACTIVE } else { EVENT_PORT_ERR };
            self.device_event(device, kind);
        }
    }

    /// The device is gone: every queue pair is flushed and every later request fails with `EIO`.
    fn kill(&mut self, device: usize) {
        self.devices[device].dead = true;
        for handle in self.qps.handles(|qp| qp.device == device) {
            self.fail_qp(handle);
        }
        self.device_event(device, EVENT_DEVICE_FATAL);
    }

    fn fail_srqs(&mut self, device: usize, what: &str) -> Result<(), String> {
        let kind = match what {
            "err" => EVENT_SRQ_ERR,
            "limit" => EVENT_SRQ_LIMIT_REACHED,
            _ => return Err("say err or limit".to_string()),
        };
        for handle in self.srqs.handles(|srq| srq.device == device) {
            let Some(srq) = self.srqs.get_mut(handle) else { continue };
            srq.failed |= kind == EVENT_SRQ_ERR;
            let context = srq.context;
            self.object_event(context, kind, Element::Srq(handle));
        }
        Ok(())
    }

    fn force(
        &mut self,
        device: usize,
        (which, status, direction): (&str, &str, &str),
        rest: &[&str],
    ) -> Result<(), String> {
        let status = strings::value_of(&strings::WC_STATUS, status).ok_or("no such status")?;
        let direction = match direction {
            "send" => Direction::Send,
            "recv" => Direction::Receive,
            _ => return Err("say send or recv".to_string()),
        };
        let after = match rest {
            [] => 0,
            ["after", count] => number(count)?,
            _ => return Err("say after COUNT".to_string()),
        };
        let number = if which == "all" { None } else { Some(number::<u32>(which)?) };
        self.faults.force(ForcedStatus { device, number, direction, after, status });
        Ok(())
    }
}
