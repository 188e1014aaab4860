#!/usr/bin/python3
"""What libseccomp makes of profiles (Debian: python3-seccomp), by runc's reading of them.

Reads lines of JSON, {"native": "X86_64", "profile": {...}}, and answers each with a line: the program in hexadecimal digits.
"""

import errno
import json
import sys
import tempfile

import seccomp

ACTIONS = {
    "SCMP_ACT_KILL": seccomp.KILL,
    "SCMP_ACT_KILL_THREAD": seccomp.KILL,
    "SCMP_ACT_KILL_PROCESS": seccomp.KILL_PROCESS,
    "SCMP_ACT_TRAP": seccomp.TRAP,
    "SCMP_ACT_NOTIFY": seccomp.NOTIFY,
    "SCMP_ACT_LOG": seccomp.LOG,
    "SCMP_ACT_ALLOW": seccomp.ALLOW,
}
WITH_DATA = {"SCMP_ACT_ERRNO": seccomp.ERRNO, "SCMP_ACT_TRACE": seccomp.TRACE}


def action(name, data):
    return WITH_DATA[name](errno.EPERM if data is None else data) if name in WITH_DATA else ACTIONS[name]


def condition(arg):
    operator = getattr(seccomp, arg["op"].removeprefix("SCMP_CMP_"))
    return seccomp.Arg(arg["index"], operator, arg["value"], arg.get("valueTwo") or 0)


def add(filter, default, rule):
    answer = action(rule["action"], rule.get("errnoRet"))
    args = rule.get("args") or []
    repeated = len({arg["index"] for arg in args}) < len(args)
    sets = [[arg] for arg in args] if repeated else [args]
    for name in rule["names"]:
        # Unknown names and rules that say what holds anyway are skipped.
        if answer == default or seccomp.resolve_syscall(seccomp.Arch.NATIVE, name) == -1:
            continue
        for conditions in sets:
            filter.add_rule(answer, name, *map(condition, conditions))


def program(native, profile):
    default = action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    filter = seccomp.SyscallFilter(default)
    native = getattr(seccomp.Arch, native)
    for arch in [native] + [getattr(seccomp.Arch, a.removeprefix("SCMP_ARCH_")) for a in profile.get("architectures") or []]:
        if not filter.exist_arch(arch):
            filter.add_arch(arch)
    if native != seccomp.Arch.X86_64:
        # Where this library runs is not where the program is to run.
        filter.remove_arch(seccomp.Arch.X86_64)
    rules = profile.get("syscalls") or []
    if len(rules) > 8:
        filter.set_attr(seccomp.Attr.CTL_OPTIMIZE, 2)
    for rule in rules:
        add(filter, default, rule)
    with tempfile.TemporaryFile() as file:
        filter.export_bpf(file)
        file.seek(0)
        return file.read()


for line in sys.stdin:
    print(program(**json.loads(line)).hex())
