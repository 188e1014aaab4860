#!/usr/bin/python3
"""Makes the programs in this directory with libseccomp (Debian: python3-seccomp), one for each profile in JSON that is named:

    make.py docker.json docker.bpf

The profiles of docker.bpf and docker-privileged.bpf are what dhow_api::defaults::seccomp gives, as JSON.
"""

import json
import sys

import seccomp

ACTIONS = {
    "SCMP_ACT_KILL": seccomp.KILL,
    "SCMP_ACT_KILL_PROCESS": seccomp.KILL_PROCESS,
    "SCMP_ACT_TRAP": seccomp.TRAP,
    "SCMP_ACT_LOG": seccomp.LOG,
    "SCMP_ACT_ALLOW": seccomp.ALLOW,
}
OPERATORS = {
    name: getattr(seccomp, name.removeprefix("SCMP_CMP_"))
    for name in ["SCMP_CMP_" + o for o in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")]
}


def action(name, errno):
    return seccomp.ERRNO(1 if errno is None else errno) if name == "SCMP_ACT_ERRNO" else ACTIONS[name]


def condition(arg):
    return seccomp.Arg(arg["index"], OPERATORS[arg["op"]], arg["value"], arg.get("valueTwo", 0))


def main(source, target):
    with open(source) as file:
        profile = json.load(file)
    default = action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    filter = seccomp.SyscallFilter(default)
    for arch in profile.get("architectures", []):
        arch = getattr(seccomp.Arch, arch.removeprefix("SCMP_ARCH_"))
        if not filter.exist_arch(arch):
            filter.add_arch(arch)
    for rule in profile["syscalls"]:
        args = [condition(arg) for arg in rule.get("args") or []]
        indexes = [arg["index"] for arg in rule.get("args") or []]
        sets = [[arg] for arg in args] if len(set(indexes)) < len(indexes) else [args]
        for name in rule["names"]:
            for conditions in sets:
                try:
                    filter.add_rule(action(rule["action"], rule.get("errnoRet")), name, *conditions)
                except (RuntimeError, ValueError) as error:
                    print(f"{name}: {error}", file=sys.stderr)
    with open(target, "wb") as file:
        filter.export_bpf(file)


main(*sys.argv[1:])
