// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {IFillVerifier} from "./IFillVerifier.sol";

/// @title Escrow
/// @notice Holds the sold tokens of cross-chain fills until the fill is proven or the time to refund has come.
/// @dev A lock ends exactly once: claimed to the solver recorded in it, or refunded to the owner. Neither party nor
/// the amount can change after locking, so both ends are open to any caller. Every ending is written before its
/// transfer. TRUST: the Settlement, which deployed this contract, to have delivered what it locks; the verifier, to
/// accept only true fills. There is no owner and no other way out for the tokens.
contract Escrow {
    using SafeERC20 for IERC20;

    /// @notice Life of a lock.
    enum State {
        None,
        Locked,
        Claimed,
        Refunded
    }

    /// @notice Tokens held for one fill.
    /// @param digest EIP-712 digest of the swap this fill is a part of.
    /// @param fillHash What has to be recorded on the fill chain for the solver to claim.
    /// @param fillChain Chain id of the payment to the receiver.
    /// @param amount Amount held, in the token's smallest unit.
    /// @param owner Account refunded.
    /// @param solver Account paid on a claim.
    /// @param token Token held.
    /// @param refundAfter Last second in which a refund is not yet possible.
    /// @param state Life of the lock.
    struct Lock {
        bytes32 digest;
        bytes32 fillHash;
        uint256 fillChain;
        uint256 amount;
        address owner;
        address solver;
        address token;
        uint64 refundAfter;
        State state;
    }

    /// @notice The contract that may lock: the Settlement that deployed this escrow.
    address public immutable settlement;

    /// @notice Judge of fills on other chains.
    IFillVerifier public immutable verifier;

    mapping(bytes32 orderId => Lock) private _locks;

    /// @notice Tokens are held for a fill.
    event Locked(
        bytes32 indexed orderId,
        bytes32 indexed digest,
        address indexed solver,
        address owner,
        address token,
        uint256 amount,
        uint256 fillChain,
        bytes32 fillHash,
        uint64 refundAfter
    );

    /// @notice The fill was proven and the solver paid.
    event Claimed(
        bytes32 indexed orderId, bytes32 indexed digest, address indexed solver, address token, uint256 amount
    );

    /// @notice The fill was not claimed in time and the owner has the tokens back.
    event Refunded(
        bytes32 indexed orderId, bytes32 indexed digest, address indexed owner, address token, uint256 amount
    );

    /// @notice The caller is not the Settlement.
    error OnlySettlement(address caller);

    /// @notice The order id was locked before.
    error AlreadyLocked(bytes32 orderId);

    /// @notice There is nothing to claim or refund: never locked, or ended already as `state` says.
    error NotLocked(bytes32 orderId, State state);

    /// @notice The verifier does not accept the proof of the fill.
    error FillNotProven(bytes32 orderId);

    /// @notice A refund is possible only after `refundAfter`.
    error RefundTooEarly(bytes32 orderId, uint64 refundAfter);

    /// @notice A lock needs a verifier with code.
    error InvalidVerifier(address verifier);

    /// @notice Binds the escrow to its deployer and to `verifier_`.
    /// @param verifier_ Judge of fills. Trusted, and never changed.
    constructor(IFillVerifier verifier_) {
        if (address(verifier_).code.length == 0) revert InvalidVerifier(address(verifier_));
        settlement = msg.sender;
        verifier = verifier_;
    }

    /// @notice Records tokens that the Settlement has just delivered to this contract.
    /// @param orderId Identifies the fill; can be locked once.
    /// @param terms What is held and for whom. Its `state` is ignored.
    function lock(bytes32 orderId, Lock calldata terms) external {
        if (msg.sender != settlement) revert OnlySettlement(msg.sender);
        if (_locks[orderId].state != State.None) revert AlreadyLocked(orderId);
        _locks[orderId] = terms;
        _locks[orderId].state = State.Locked;
        emit Locked(
            orderId,
            terms.digest,
            terms.solver,
            terms.owner,
            terms.token,
            terms.amount,
            terms.fillChain,
            terms.fillHash,
            terms.refundAfter
        );
    }

    /// @notice Pays the recorded solver upon proof of the fill. Anyone may call.
    /// @dev Open until the lock is refunded, even past `refundAfter`: a solver who paid the receiver in time should
    /// not lose to the clock alone.
    /// @param orderId The fill.
    /// @param proof Evidence in the verifier's format.
    function claim(bytes32 orderId, bytes calldata proof) external {
        Lock storage held = _end(orderId, State.Claimed);
        if (!verifier.verify(held.fillChain, orderId, held.fillHash, proof)) revert FillNotProven(orderId);
        emit Claimed(orderId, held.digest, held.solver, held.token, held.amount);
        IERC20(held.token).safeTransfer(held.solver, held.amount);
    }

    /// @notice Returns the tokens to the owner once `refundAfter` has passed without a claim. Anyone may call.
    /// @param orderId The fill.
    function refund(bytes32 orderId) external {
        Lock storage held = _end(orderId, State.Refunded);
        if (block.timestamp <= held.refundAfter) revert RefundTooEarly(orderId, held.refundAfter);
        emit Refunded(orderId, held.digest, held.owner, held.token, held.amount);
        IERC20(held.token).safeTransfer(held.owner, held.amount);
    }

    /// @notice The lock of a fill; all zero if there never was one.
    /// @param orderId The fill.
    /// @return The recorded terms and state.
    function locks(bytes32 orderId) external view returns (Lock memory) {
        return _locks[orderId];
    }

    /// @dev Ends a lock before anything else happens, which is what makes a second ending impossible even when the
    /// token calls back.
    function _end(bytes32 orderId, State ending) private returns (Lock storage held) {
        held = _locks[orderId];
        if (held.state != State.Locked) revert NotLocked(orderId, held.state);
        held.state = ending;
    }
}
