"""python3 -m unittest: the judge of the Autobahn report must be able to say no."""

import unittest

import summary


def passing():
    """A report of a server without compression that passes: real sections, invented case numbers."""
    cases = {
        f"{section}.{number}.1": {"behavior": behaviour, "behaviorClose": behaviour}
        for section, count in summary.CASES.items()
        for behaviour in ["UNIMPLEMENTED" if section in summary.COMPRESSION else "OK"]
        for number in range(1, count + 1)
    }
    del cases["7.1.1"]
    cases["7.1.6"] = {"behavior": "INFORMATIONAL", "behaviorClose": "INFORMATIONAL"}
    cases["7.13.1"] = {"behavior": "INFORMATIONAL", "behaviorClose": "INFORMATIONAL"}
    return cases


class Judge(unittest.TestCase):
    def reasons(self, case=None, **behaviours):
        cases = passing()
        if case:
            cases[case] = {**cases[case], **behaviours}
        return summary.judge(cases, summary.CASES)

    def test_suite_has_517_cases(self):
        self.assertEqual(sum(summary.CASES.values()), 517)
        self.assertEqual(sum(count for number, count in summary.CASES.items() if number <= 10), 301)

    def test_conforming_report_passes(self):
        self.assertEqual(self.reasons(), [])

    def test_anything_but_ok_fails(self):
        for behaviour in ["FAILED", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED"]:
            for case in ["1.1.1", "6.3.1", "9.1.1", "10.1.1"]:
                self.assertEqual(len(self.reasons(case, behavior=behaviour)), 1, (case, behaviour))

    def test_closing_is_judged_too(self):
        for behaviour in ["FAILED", "WRONG CODE", "UNCLEAN", "FAILED BY CLIENT"]:
            for case in ["1.1.1", "7.1.6", "12.1.1"]:
                self.assertEqual(len(self.reasons(case, behaviorClose=behaviour)), 1, (case, behaviour))

    def test_compression_may_be_missing_but_not_broken(self):
        self.assertEqual(self.reasons("12.1.1", behavior="OK", behaviorClose="OK"), [])
        self.assertEqual(len(self.reasons("13.1.1", behavior="FAILED")), 1)
        self.assertEqual(len(self.reasons("13.1.1", behavior="NON-STRICT")), 1)

    def test_missing_case_fails(self):
        cases = passing()
        del cases["9.1.1"]
        self.assertEqual(len(summary.judge(cases, summary.CASES)), 1)
        self.assertEqual(len(summary.judge({}, summary.CASES)), len(summary.CASES))


if __name__ == "__main__":
    unittest.main()
